-- Heads of partitions, made where there is none. KEYS: heads. ARGV: incarnation, life. Reply: heads.
local reply = {}
for k = 1, #KEYS do
    reply[k] = head_reply(head_or_fresh(KEYS[k], ARGV[1], ARGV[2]))
end
return reply
