-- Makes all state of some partitions cold, keeps their journals. KEYS: heads. ARGV: a life.
for k = 1, #KEYS do
    local head = read_head(KEYS[k])
    if head then
        call('HSET', head.key, 'life', ARGV[1], 'floor', whole(head.last))
    end
end
return 1
