-- One step of a queue's clock; it takes the lease, and gives it back where no one waits or is in.
-- ARGV, after those of every script of a queue: lease in ms, let in at most, active at most,
-- length of a stay, time to come, grace in ms, people of one step.
-- Reply: 2 when it is another owner's turn, or 0, let in, whether there may be more to sweep, figures.
local owner, lease, admit, capacity = ARGV[5], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local stay, claim, grace, step = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
-- What the queue is made of outlives weir's absence by a week.
local KEPT_MS = '604800000'

local holder = call('GET', prefix .. 't')
if holder and holder ~= owner then
    return { 2 }
end
call('SET', prefix .. 't', owner, 'PX', lease)
call('PEXPIRE', META, KEPT_MS)

-- Those whose stay is over.
local due = call('ZRANGEBYSCORE', ACTIVE, '-inf', whole(passed), 'LIMIT', 0, step)
for _, actor in ipairs(due) do
    local state, number = person(actor)
    if state and state ~= 1 then
        finish(actor, state, number, 3)
    else
        call('ZREM', ACTIVE, actor)
    end
end

-- Those who may have stopped asking.
local stale = {}
if #due < step then
    stale = call('ZRANGEBYSCORE', SEEN, '-inf', whole(passed), 'LIMIT', 0, step - #due)
end
for _, actor in ipairs(stale) do
    local state, number, _, _, time = person(actor)
    if state ~= 1 then
        call('ZREM', SEEN, actor)
    elseif time + grace > passed then
        call('ZADD', SEEN, whole(time + grace), actor)
    else
        finish(actor, 1, number, 4)
    end
end

-- Those at the front.
local space = math.min(admit, capacity - call('ZCARD', ACTIVE), step)
local admitted = 0
if space > 0 then
    local first = call('ZRANGE', WAITING, 0, space - 1)
    local until_ms = now + math.min(claim, stay)
    local records, scores = {}, {}
    for at, actor in ipairs(first) do
        local _, number = person(actor)
        records[2 * at - 1], records[2 * at] = actor, 
            pack_numbers(FORM_ENTERED, 2, number or 0, stay, now, until_ms, wall)
        scores[2 * at - 1], scores[2 * at] = whole(until_ms), actor
    end
    admitted = #first
    if admitted > 0 then
        call('HSET', PEOPLE, unpack(records))
        call('ZADD', ACTIVE, unpack(scores))
        call('ZREMRANGEBYRANK', WAITING, 0, admitted - 1)
        call('ZREM', SEEN, unpack(first))
        count('admitted', admitted)
    end
end

-- An idle queue has no owner: the host where somebody arrives lets them in at once.
local after = figures()
if after[1] == 0 and after[2] == 0 then
    call('DEL', prefix .. 't', HOSTS)
end
return { 0, admitted, #due + #stale == step and 1 or 0, after }
