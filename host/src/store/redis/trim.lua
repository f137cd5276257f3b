-- Drops entries that SQL has committed. KEYS: the head. ARGV: incarnation, position, ttl of states in ms, number of
-- known pairs of a huge target that are kept, number of touched targets; these; the invalid targets. Reply: 1 when
-- it applied.
local head = read_head(KEYS[1])
local position = tonumber(ARGV[2])
if not head or head.inc ~= ARGV[1] or position < head.flushed or position > head.last then
    return 0
end
local prefix, state_ttl, pairs_max, touched = head.prefix, tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local stream, after = prefix .. 'j', whole(position + 1)
local GRACE = 60000

local function field(entry, name)
    for index = 1, #entry[2], 2 do
        if entry[2][index] == name then
            return tonumber(entry[2][index + 1])
        end
    end
    damaged('a journal entry lacks the field ' .. name)
end
local newest = call('XREVRANGE', stream, ARGV[2] .. '-0', '-', 'COUNT', 1)[1]
local oldest = call('XRANGE', stream, after .. '-0', '+', 'COUNT', 1)[1]
local to, tb, old = head.to, head.tb, oldest and field(oldest, 't') or 0
if newest then
    to, tb = field(newest, 'o'), field(newest, 'b')
end

local names, invalid, order = {}, {}, {}
for at = 6, #ARGV do
    local id = ARGV[at]
    if invalid[id] == nil then
        order[#order + 1] = id
        names[#names + 1] = prefix .. 't:' .. id
        invalid[id] = false
    end
    invalid[id] = invalid[id] or at > 5 + touched
end
local targets = {}
for index, record in ipairs(get_many(names)) do
    if record then
        local count, last = read_record(record)
        local mode, invalid, life = sub(record, 1, 1), sub(record, 2, 2), sub(record, 3, 14)
        targets[index] = { mode = mode, invalid = invalid, life = life, count = count, last = last }
    end
end

call('XTRIM', stream, 'MINID', '=', after .. '-0')
call('HSET', head.key, 'flushed', ARGV[2], 'to', whole(to), 'tb', whole(tb), 'old', whole(old))
for index, id in ipairs(order) do
    local target = targets[index]
    local record, members, absent, dirty = names[index], prefix .. 'm:' .. id, prefix .. 'n:' .. id, prefix .. 'd:' .. id
    if target then
        local is_clean, is_invalid = target.last <= position, invalid[id] or target.invalid == '1'
        if is_clean and (is_invalid or target.life ~= head.life) then
            call('DEL', record, members, absent, dirty)
        else
            if target.mode == 'h' then
                call('ZREMRANGEBYSCORE', dirty, '-inf', ARGV[2])
                if is_clean and call('ZCARD', members) + call('SCARD', absent) > pairs_max then
                    call('DEL', members, absent, dirty)
                end
            end
            if is_clean then
                call('PEXPIRE', record, state_ttl, 'NX')
                call('PEXPIRE', members, state_ttl + GRACE, 'NX')
                call('PEXPIRE', absent, state_ttl + GRACE, 'NX')
            elseif is_invalid and target.invalid == '0' then
                call('SET', record, target_record(target.mode, '1', target.life, target.count, target.last))
            end
        end
    end
end
return 1
