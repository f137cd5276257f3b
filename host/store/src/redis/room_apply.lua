-- Operations on one queue. ARGV, after those of every script of a queue: most that may wait, grace in ms, then per operation:
-- verb, actor (tagged), number, and of
--   J a join: lane, lot or '', length of the stay or ''
--   E an extension: from now or '' for what the stay was at first, longest stay in ms
--   P a poll, L a look, G a leave, C a completion: nothing
-- Reply: 0, figures, per operation: 1 number, ahead, lane, since, new | 2 number, until, since, new | 4 reason, new | 5 | 6.
local waiting_max, grace = tonumber(ARGV[7]), tonumber(ARGV[8])

local function told(actor, state, number, first, since, time, new)
    if state == 1 then
        return { 1, number, call('ZRANK', WAITING, actor) or 0, math.floor(first / LANE), since, new }
    end
    -- By the host's clock: what is left is what counts.
    return { 2, number, time + ahead, entered[actor] or since + ahead, new }
end

local function gone(actor, number)
    local known = call('GET', prefix .. 'e:' .. actor)
    local of, reason = match(known or '', '^(%d+) (%d)$')
    if of and tonumber(of) == number then
        return { 4, tonumber(reason), 0 }
    end
    return { 5 }
end

local function join(actor, lane, lot, stay)
    if stay == '' and call('ZCARD', WAITING) >= waiting_max then
        return { 6 }
    end
    local number = call('HINCRBY', META, 'number', 1)
    count('joined', 1)
    if stay ~= '' then
        local length = tonumber(stay)
        entered[actor] = wall
        keep(actor, 3, number, length, now, now + length)
        call('ZADD', ACTIVE, whole(now + length), actor)
        count('admitted', 1)
        return told(actor, 3, number, length, now, now + length, 1)
    end
    local score = lane * LANE
    if lot == '' then
        score = score + number % LANE
    else
        score = score + tonumber(lot) % LANE
        while #call('ZRANGEBYSCORE', WAITING, whole(score), whole(score), 'LIMIT', 0, 1) > 0 do
            score = score + 1
        end
        call('RPUSH', DRAW, actor)
    end
    keep(actor, 1, number, score, wall, now)
    call('ZADD', WAITING, whole(score), actor)
    call('ZADD', SEEN, whole(now + grace), actor)
    return told(actor, 1, number, score, wall, now, 1)
end

-- Somebody who was let in has come: they get the whole stay.
local function poll(actor, state, number, first, since, time)
    if state == 1 then
        if now > time then
            keep(actor, 1, number, first, since, now)
        end
        return told(actor, 1, number, first, since, now, 0)
    end
    if state == 3 then
        return told(actor, 3, number, first, since, time, 0)
    end
    time = math.max(time, since + first)
    keep(actor, 3, number, first, since, time)
    call('ZADD', ACTIVE, whole(time), actor)
    return told(actor, 3, number, first, since, time, 1)
end

local function extend(actor, state, number, first, since, time, length, longest)
    local until_ms = math.min(now + (length or first), since + longest)
    if state == 1 or until_ms <= time then
        return told(actor, state, number, first, since, time, 0)
    end
    keep(actor, 3, number, first, since, until_ms)
    call('ZADD', ACTIVE, whole(until_ms), actor)
    return told(actor, 3, number, first, since, until_ms, 1)
end

local reply, at = { 0, 0 }, 9
while ARGV[at] do
    local verb, actor, asked = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local state, number, first, since, time = person(actor)
    if state and state ~= 1 and time <= passed then
        finish(actor, state, number, 3)
        state = nil
    end
    local result
    if verb == 'J' then
        if state == 1 then
            result = poll(actor, state, number, first, since, time)
        elseif state then
            result = told(actor, state, number, first, since, time, 0)
        else
            result = join(actor, tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5])
        end
        at = at + 3
    elseif not state or number ~= asked then
        result = gone(actor, asked)
    elseif verb == 'P' then
        result = poll(actor, state, number, first, since, time)
    elseif verb == 'E' then
        result = extend(actor, state, number, first, since, time, tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]))
    elseif verb == 'G' or (verb == 'C' and state ~= 1) then
        local reason = state == 1 and 1 or 2
        finish(actor, state, number, reason)
        result = { 4, reason, 1 }
    else
        result = told(actor, state, number, first, since, time, 0)
    end
    if verb == 'E' then
        at = at + 2
    end
    reply[#reply + 1] = result
    at = at + 3
end
reply[2] = figures()
return reply
