-- Settings of members of one partition. KEYS: the head. ARGV: the members. Reply: the life of what is valid, then what the
-- field '' of each member holds: the host looks at it, so that this is one call of Redis a member and nothing else.
local prefix = sub(KEYS[1], 1, -2) .. 't:'
local reply = { call('HGET', KEYS[1], 'life') or '' }
for index = 1, #ARGV do
    reply[index + 1] = call('HGET', prefix .. ARGV[index], '')
end
return reply
