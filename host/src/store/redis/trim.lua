-- Drops entries that SQL has committed. KEYS: the head. ARGV: incarnation, position, ttl of states in ms, number of
-- known pairs of a huge target that are kept, number of touched targets; these; the invalid targets. Reply: 1 when
-- it applied.
local head = read_head(KEYS[1])
local position = tonumber(ARGV[2])
if not head or head.inc ~= ARGV[1] or position < head.flushed or position > head.last then
    return 0
end
local max = math.max
local prefix, state_ttl, pairs_max, touched = head.prefix, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local stream, after = prefix .. 'j', whole(position + 1)

-- Time, and changes and bytes up to the entry.
local function numbers(entry)
    for index = 1, #entry[2], 2 do
        if entry[2][index] == 'n' then
            return unpack_numbers('<ddd', entry[2][index + 1])
        end
    end
    damaged('a journal entry lacks its numbers')
end
local newest = call('XREVRANGE', stream, ARGV[2] .. '-0', '-', 'COUNT', 1)[1]
local oldest = call('XRANGE', stream, after .. '-0', '+', 'COUNT', 1)[1]
head.old = oldest and numbers(oldest) or 0
if newest then
    local _
    _, head.to, head.tb = numbers(newest)
end
local flushed_before = head.flushed
head.flushed, head.gone = position, max(head.gone, position)

local invalid, order, metas, owned = {}, {}, {}, {}
for at = 6, #ARGV do
    local id = ARGV[at]
    if invalid[id] == nil then
        order[#order + 1] = id
        metas[#order] = call('HGET', prefix .. 't:' .. id, '')
        if metas[#order] then
            -- Fails here, before the first write, when it is not as weir wrote it.
            local mode = read_meta(metas[#order])
            owned[id] = mode == 'p' and owned_by(head, id)
        end
        invalid[id] = false
    end
    invalid[id] = invalid[id] or at > 5 + touched
end

call('XTRIM', stream, 'MINID', '=', after .. '-0')

-- A document does not wait any more. One whose id may be asked for again is known to exist, unless SQL refused it.
local function clean_document(id, key, is_asked_again)
    forget_document(head, id, owned[id])
    head.docs = max(head.docs - 1, 0)
    if is_asked_again and not invalid[id] then
        call('HSET', key, '', meta_of('e', '0', head.life, 0, 0))
        call('PEXPIRE', key, state_ttl)
    end
end

local function clean_target(id, key, meta)
    local mode, was_invalid, life, last, count = read_meta(meta)
    local dirty, is_clean, is_invalid = prefix .. 'd:' .. id, last <= position, invalid[id] or was_invalid == '1'
    if is_clean and last > flushed_before and life == head.life then
        head.dirty = max(head.dirty - 1, 0)
    end
    if is_clean and (is_invalid or life ~= head.life) then
        call('DEL', key, dirty)
        return
    end
    if mode == 'h' then
        call('ZREMRANGEBYSCORE', dirty, '-inf', ARGV[2])
        if is_clean and call('HLEN', key) - 1 > pairs_max then
            call('DEL', key, dirty)
            call('HSET', key, '', meta)
        end
    end
    if is_clean then
        call('PEXPIRE', key, state_ttl, 'NX')
    elseif is_invalid and was_invalid == '0' then
        call('HSET', key, '', sub(meta, 1, 1) .. '1' .. sub(meta, 3))
    end
end

for index, id in ipairs(order) do
    local meta, key = metas[index], prefix .. 't:' .. id
    if meta and sub(meta, 1, 1) == 'p' then
        local _, is_asked_again, _, last = read_meta(meta)
        if last <= position then
            clean_document(id, key, is_asked_again == '1')
        end
    elseif meta then
        clean_target(id, key, meta)
    end
end
if head.o == head.to then
    -- Nothing waits, whatever was not named.
    head.dirty, head.docs = 0, 0
end
call('HSET', head.key, 'n', head_numbers(head))
return 1
