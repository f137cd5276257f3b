-- Before the scripts of a queue: names and records. Keys: see redis/keys.rs; KEYS[1] is the queue's `:m`, the others are made
-- from it. ARGV: seed, now in ms, how long it is remembered why somebody is gone in ms, ….
--
-- Operations of a batch are whole one by one: each reads before it writes, and every one is safe to repeat.
local prefix = sub(KEYS[1], 1, -2)
local META, WAITING, ACTIVE = KEYS[1], prefix .. 'w', prefix .. 'a'
local SEEN, PEOPLE, DRAW = prefix .. 's', prefix .. 'p', prefix .. 'd'
local LANE = 17592186044416
local now, ended_ttl = tonumber(ARGV[2]), ARGV[3]
-- A record: state (1 waits, 2 let in, 3 has come), number; score, since when, seen when; or length of the stay, since when, until
-- when.
local FORM, FORM_BYTES = '<Bdddd', 33
local totals = {}

local function count(name, by)
    totals[name] = (totals[name] or 0) + by
end

local function person(actor)
    local packed = call('HGET', PEOPLE, actor)
    if not packed then
        return nil
    end
    if #packed ~= FORM_BYTES then
        damaged('a person in a queue')
    end
    return unpack_numbers(FORM, packed)
end

local function keep(actor, state, number, first, since, time)
    call('HSET', PEOPLE, actor, pack_numbers(FORM, state, number, first, since, time))
end

-- 1 left, 2 completed, 3 out of time, 4 abandoned, 5 let in and never came.
local REASONS = { 'left', 'completed', 'expired', 'abandoned', 'no_shows' }
local function finish(actor, state, number, reason)
    if reason == 3 and state == 2 then
        reason = 5
    end
    if state == 1 then
        call('ZREM', WAITING, actor)
        call('ZREM', SEEN, actor)
    else
        call('ZREM', ACTIVE, actor)
    end
    call('HDEL', PEOPLE, actor)
    call('SET', prefix .. 'e:' .. actor, whole(number) .. ' ' .. reason, 'PX', ended_ttl)
    count(REASONS[reason], 1)
end

-- waiting, active, and the totals with what was counted here: who came or went, so the queue was used.
local function figures()
    if next(totals) then
        call('HSET', META, 'used', whole(now))
    end
    for name, by in pairs(totals) do
        call('HINCRBY', META, name, by)
    end
    local known = call('HMGET', META, 'joined', 'admitted', 'completed', 'expired', 'no_shows', 'abandoned', 'left')
    local reply = { call('ZCARD', WAITING), call('ZCARD', ACTIVE) }
    for at = 1, 7 do
        reply[at + 2] = tonumber(known[at] or 0)
    end
    return reply
end

if call('HGET', META, 'seed') ~= ARGV[1] then
    return { 1 }
end
