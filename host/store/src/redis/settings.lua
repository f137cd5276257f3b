-- Settings of members of one partition. KEYS: the head. ARGV: the members. Reply: the life of what is valid, then what the
-- field '' of each member holds: the host looks at it, so that this is one call of Redis a member and nothing else. '!' and
-- why, where one cannot be read.
local prefix = sub(KEYS[1], 1, -2) .. 't:'
local reply = { call('HGET', KEYS[1], 'life') or '' }
for index = 1, #ARGV do
    local found = redis.pcall('HGET', prefix .. ARGV[index], '')
    reply[index + 1] = type(found) == 'table' and '!' .. tostring(found.err) or found
end
return reply
