-- Members of a target. KEYS: its head. ARGV: target.
-- Reply: code (0 whole, 1 overlay, 3 missing, 4 cold); members with their times, in no order; actors known to be absent.
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
    return { 0, call('HGETALL', key) }
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
