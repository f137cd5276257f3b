-- Members of a target. KEYS: its head. ARGV: target, limit, and of the member to begin after: since, actor (or nothing).
-- Reply: code (0 whole, 1 overlay, 3 missing, 4 cold); members with their times; actors known to be absent.
local head = read_head(KEYS[1])
local id, limit, since, before = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local target = head and known(call('GET', head.prefix .. 't:' .. id), head)
if not target then
    return { 4 }
end
if target.mode == 'm' then
    return { 3 }
end
local key = head.prefix .. 'm:' .. id
if target.mode == 'h' then
    local present, absent = {}, {}
    for _, actor in ipairs(call('ZRANGE', head.prefix .. 'd:' .. id, 0, -1)) do
        local score = call('ZSCORE', key, actor)
        if score then
            present[#present + 1], present[#present + 2] = actor, score
        else
            absent[#absent + 1] = actor
        end
    end
    return { 1, present, absent }
end
if limit == 0 then
    return { 0, {} }
end
local first = 0
if before ~= '' then
    -- The first rank, newest first, that is strictly older: all that are newer, then among the same time those with a
    -- greater or the same actor, found by bisection.
    first = call('ZCOUNT', key, '(' .. since, '+inf')
    local last = first + call('ZCOUNT', key, since, since)
    while first < last do
        local middle = math.floor((first + last) / 2)
        if less(call('ZREVRANGE', key, middle, middle)[1], before) then
            last = middle
        else
            first = middle + 1
        end
    end
end
return { 0, call('ZREVRANGE', key, first, first + limit - 1, 'WITHSCORES') }
