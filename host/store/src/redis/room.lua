-- Before the scripts of a queue: names and records. Keys: see redis/keys.rs; KEYS[1] is the queue's `:m`, the others are made
-- from it. ARGV: seed, when it is by the host's clock in ms (then ' ', and in tests the server's time), how long it is
-- remembered why somebody is gone in ms, the longest pause in ms, host, 'CH' when somebody asks through it or 'XX', ….
--
-- A queue has a time of its own, which passes only while people could ask. It follows the server's clock from one call to the
-- next; a longer pause than there should be was a standstill (of the host, of this server, a clock that was set) and counts as
-- the longest. So does the silence of one of several hosts through which people asked: its last call is as far as the time has
-- got, until it calls again, or has been silent for so long that the system that sends people to it has noticed.
--
-- Operations of a batch are whole one by one: each reads before it writes, and every one is safe to repeat.
local prefix = sub(KEYS[1], 1, -2)
local META, WAITING, ACTIVE = KEYS[1], prefix .. 'w', prefix .. 'a'
local SEEN, PEOPLE, DRAW, HOSTS = prefix .. 's', prefix .. 'p', prefix .. 'd', prefix .. 'h'
local SILENT_MS = 30000
local LANE = 17592186044416
local at_text, told = match(ARGV[2], '^(%d+) (%d*)$')
local wall, ended_ttl, pause_max = tonumber(at_text), ARGV[3], tonumber(ARGV[4])
-- A record: state (1 waits, 2 let in, 3 has come), number; score, since when by a host's clock, seen when; or length of the stay,
-- since when, until when.
-- Of who was let in, when that was by the host's clock follows: every reply gives the same time. Earlier versions did
-- not write it.
local FORM, FORM_BYTES = '<Bdddd', 33
local FORM_ENTERED, FORM_ENTERED_BYTES = '<Bddddd', 41
local entered = {}
local totals = {}

local function count(name, by)
    totals[name] = (totals[name] or 0) + by
end

local function person(actor)
    local packed = call('HGET', PEOPLE, actor)
    if not packed then
        return nil
    end
    if #packed == FORM_ENTERED_BYTES then
        entered[actor] = unpack_numbers('<d', packed, FORM_BYTES + 1)
    elseif #packed ~= FORM_BYTES then
        damaged('a person in a queue')
    end
    return unpack_numbers(FORM, packed)
end

local function keep(actor, state, number, first, since, time)
    local at = state ~= 1 and entered[actor]
    if at then
        call('HSET', PEOPLE, actor, pack_numbers(FORM_ENTERED, state, number, first, since, time, at))
    else
        call('HSET', PEOPLE, actor, pack_numbers(FORM, state, number, first, since, time))
    end
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
        call('HSET', META, 'used', whole(wall))
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

local server = tonumber(told)
if not server then
    local time = call('TIME')
    server = time[1] * 1000 + math.floor(time[2] / 1000)
end
call('ZADD', HOSTS, ARGV[6], whole(server), ARGV[5])
call('ZREMRANGEBYSCORE', HOSTS, '-inf', whole(server - SILENT_MS))
local oldest = call('ZRANGE', HOSTS, 0, 0, 'WITHSCORES')
local heard = math.min(server, tonumber(oldest[2] or server))
local clock = call('HMGET', META, 'time', 'heard', 'ahead')
local before = tonumber(clock[2] or heard)
-- The queue's time: up to `passed` everybody could ask. What begins now begins at `now`.
local passed = tonumber(clock[1] or wall) + math.min(math.max(heard - before, 0), pause_max)
local now = passed + math.min(server - heard, pause_max)
-- How far the host's clock is ahead of it, as replies report it: the same as before unless it has really changed.
local ahead = tonumber(clock[3] or wall - now)
if math.abs(wall - now - ahead) > 50 then
    ahead = wall - now
end
call('HSET', META, 'time', whole(passed), 'heard', whole(heard), 'ahead', whole(ahead))
