-- Keeps values of a policy module. KEYS: the keys. ARGV: per key the value, with its letter, and the ttl in ms.
for at, key in ipairs(KEYS) do
    call('SET', key, ARGV[2 * at - 1], 'PX', ARGV[2 * at])
end
return 1
