-- Publishes a message to all hosts. KEYS: the stream, the versions. ARGV: the message, a version, messages kept, fields
-- kept, and the fields that get this version. Reply: the message's id.
local version = ARGV[2]
redis.call('HSETNX', KEYS[2], '*', version)
for at = 5, #ARGV do
    redis.call('HSET', KEYS[2], ARGV[at], version)
end
if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[4]) then
    -- Another version of all stands for all that are dropped.
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[2], '*', version)
end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'm', ARGV[1])
