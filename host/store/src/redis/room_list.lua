-- KEYS: the queues of a kind, or the draw of a queue. ARGV: z or l; first and last place. Reply: their names.
if ARGV[1] == 'z' then
    return call('ZRANGE', KEYS[1], ARGV[2], ARGV[3])
end
return call('LRANGE', KEYS[1], ARGV[2], ARGV[3])
