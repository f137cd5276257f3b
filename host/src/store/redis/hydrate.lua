-- Takes what SQL said of one partition, if it still holds. KEYS: the head. ARGV: incarnation and position of the
-- checkpoint, ttl of states and of absences in ms, incarnation and life for a head that must be made, number of
-- targets; per target: target, mode, number of members (or count of a huge one), then actor and time of each member;
-- then per pair: target, actor, time or '-'.
-- Reply: 1 when taken, else 0; the head.
local head = head_or_fresh(KEYS[1], ARGV[5], ARGV[6])
if ARGV[1] ~= head.inc or tonumber(ARGV[2]) < math.max(head.flushed, head.floor) then
    return { 0, head_reply(head) }
end
local prefix, state_ttl, absent_ttl = head.prefix, tonumber(ARGV[3]), tonumber(ARGV[4])
-- Members outlive their target's record, so that a record never speaks of members that have expired.
local GRACE = 60000

local at = 8
for _ = 1, tonumber(ARGV[7]) do
    local id, mode, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local first = at + 3
    at = first + (mode == 'w' and size * 2 or 0)
    local key = prefix .. 't:' .. id
    if not known(call('GET', key), head) then
        call('DEL', prefix .. 'm:' .. id, prefix .. 'n:' .. id, prefix .. 'd:' .. id)
        if mode == 'w' then
            local count = 0
            for from = first, at - 1, 2000 do
                -- The first time counts where an actor is there twice.
                count = count + call('ZADD', prefix .. 'm:' .. id, 'NX', unpack(ARGV, from, math.min(from + 1999, at - 1)))
            end
            call('PEXPIRE', prefix .. 'm:' .. id, state_ttl + GRACE)
            size = count
        end
        call('SET', key, target_record(mode, '0', head.life, size, 0), 'PX', mode == 'm' and absent_ttl or state_ttl)
    end
end

local targets = {}
while at <= #ARGV do
    local id, actor, since = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    at = at + 3
    if targets[id] == nil then
        targets[id] = known(call('GET', prefix .. 't:' .. id), head) or false
    end
    local target, members, absent = targets[id], prefix .. 'm:' .. id, prefix .. 'n:' .. id
    local is_unknown = target and target.mode == 'h' and not call('ZSCORE', members, actor)
        and call('SISMEMBER', absent, actor) == 0
    if is_unknown then
        local key = since == '-' and absent or members
        if since == '-' then
            call('SADD', absent, actor)
        else
            call('ZADD', members, since, actor)
        end
        if target.last <= head.flushed then
            local left = call('PTTL', prefix .. 't:' .. id)
            if left > 0 then
                call('PEXPIRE', key, left + GRACE)
            end
        end
    end
end
return { 1, head_reply(head) }
