-- Members of a target. KEYS: its head. ARGV: target, cursor (0 to begin with).
-- Reply: code (0 whole, 1 overlay, 3 missing, 4 cold); members with their times, in no order; actors known to be absent,
-- or of a whole target the next cursor, 0 at the end. What is there all the while comes once or more often.
local head = read_head(KEYS[1])
local key = head and head.prefix .. 't:' .. ARGV[1]
local meta = head and call('HGET', key, '')
if not head or not is_known(meta, head) then
    return { 4 }
end
local mode = read_meta(meta)
if mode == 'm' then
    return { 3 }
end
if mode == 'w' then
    -- The host takes the field '' out, sorts, and cuts: that is no work for a server that does one thing at a time.
    local found = call('HSCAN', key, ARGV[2], 'COUNT', 1000)
    return { 0, found[2], found[1] }
end
if mode ~= 'h' then
    -- Of another capability: the members are unknown.
    return { 4 }
end
local present, absent = {}, {}
local changed = call('ZRANGE', head.prefix .. 'd:' .. ARGV[1], 0, -1)
local since = #changed > 0 and ask_many('HMGET', key, changed, 1, #changed)
for index, actor in ipairs(changed) do
    if since[index] and since[index] ~= '-' then
        present[#present + 1], present[#present + 2] = actor, since[index]
    else
        absent[#absent + 1] = actor
    end
end
return { 1, present, absent }
