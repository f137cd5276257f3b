-- Takes what SQL said of one partition, if it still holds. KEYS: the head. ARGV: incarnation and position of the
-- checkpoint, ttl of states and of absences in ms, incarnation and life for a head that must be made, number of
-- targets; per target: target, mode, number of members (or count of one that has none here), then actor and time of each
-- member, or the settings of a member, packed; then per pair: target, actor, time or '-'.
-- Reply: 1 when taken, else 0; the head.
local head = head_or_fresh(KEYS[1], ARGV[5], ARGV[6])
if ARGV[1] ~= head.inc or tonumber(ARGV[2]) < math.max(head.flushed, head.floor) then
    return { 0, head_reply(head) }
end
local prefix, state_ttl, absent_ttl = head.prefix, ARGV[3], ARGV[4]

-- Modes of one capability.
local FAMILY = { w = 'toggle', h = 'toggle', c = 'counter', e = 'document', f = 'preference' }

-- Whether what is known stays where a load comes: it is known. What an earlier capability of the kind left behind, or a
-- document that does not wait any more, does not stay.
local function stays(meta, mode)
    if waits(meta, head) then
        return true
    end
    if not is_known(meta, head) then
        return false
    end
    local known, _, _, last = read_meta(meta)
    if known == 'p' then
        return false
    end
    return last > head.flushed or known == 'm' or mode == 'm' or FAMILY[known] == FAMILY[mode]
end

local at = 8
for _ = 1, tonumber(ARGV[7]) do
    local id, mode, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local first = at + 3
    at = first + (mode == 'w' and size * 2 or mode == 'f' and 1 or 0)
    local key = prefix .. 't:' .. id
    local meta = call('HGET', key, '')
    if not stays(meta, mode) then
        if meta and sub(meta, 1, 1) == 'p' then
            forget_document(head, id, owned_by(head, id))
        end
        call('DEL', key, prefix .. 'd:' .. id)
        if size >= 64 and mode ~= 'c' then
            call('HSET', key, '', LONG)
        end
        local meta = meta_of(mode, '0', head.life, 0, size)
        if mode == 'f' then
            call('HSET', key, '', meta .. ARGV[first])
        else
            call('HSET', key, '', meta)
            for from = first, at - 1, 2000 do
                call('HSET', key, unpack(ARGV, from, math.min(from + 1999, at - 1)))
            end
        end
        call('PEXPIRE', key, mode == 'm' and absent_ttl or state_ttl)
    end
end

local is_huge = {}
while at <= #ARGV do
    local id, actor, since = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    at = at + 3
    local key = prefix .. 't:' .. id
    if is_huge[id] == nil then
        local meta = call('HGET', key, '')
        is_huge[id] = is_known(meta, head) and sub(meta, 1, 1) == 'h' or false
    end
    if is_huge[id] then
        call('HSETNX', key, actor, since)
    end
end
return { 1, head_reply(head) }
