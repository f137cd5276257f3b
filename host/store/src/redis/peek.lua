-- Heads of partitions, as they are. KEYS: heads. Reply: heads; false where there is none.
local reply = {}
for k = 1, #KEYS do
    local head = read_head(KEYS[k])
    reply[k] = head and head_reply(head) or false
end
return reply
