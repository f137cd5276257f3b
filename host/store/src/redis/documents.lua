-- Documents that wait. KEYS: heads. ARGV: 2 per document: index of its head in KEYS, id.
-- Reply: per document id and actor (tagged), body, time, position; false where none waits.
local heads, reply = {}, {}
for k = 1, #KEYS do
    heads[k] = read_head(KEYS[k])
end
for at = 1, #ARGV, 2 do
    local head, found = heads[tonumber(ARGV[at])], nil
    if head then
        found = call('HMGET', head.prefix .. 't:' .. ARGV[at + 1], '', 'i', 'a', 'b', 't')
    end
    local waiting = found and waits(found[1], head)
    if waiting then
        local _, _, _, last = read_meta(found[1])
        found = { found[2], found[3], found[4], found[5], last }
    end
    reply[#reply + 1] = waiting and found or false
end
return reply
