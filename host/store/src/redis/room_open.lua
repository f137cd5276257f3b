-- Makes a queue, unless it is there. KEYS: the queue's `:m`. ARGV: the seed of a new one, now in ms. Reply: the seed.
local seed = call('HGET', KEYS[1], 'seed')
if seed then
    return seed
end
local prefix = sub(KEYS[1], 1, -2)
call('UNLINK', KEYS[1], prefix .. 'w', prefix .. 'a', prefix .. 's', prefix .. 'p', prefix .. 'd', prefix .. 't', prefix .. 'h')
call('HSET', KEYS[1], 'seed', ARGV[1], 'used', ARGV[2])
return ARGV[1]
