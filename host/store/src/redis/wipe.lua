-- Makes all state of some partitions cold, keeps their journals. KEYS: heads. ARGV: a life.
for k = 1, #KEYS do
    local head = read_head(KEYS[k])
    if head then
        head.floor, head.dirty = head.last, 0
        call('HSET', head.key, 'life', ARGV[1], 'n', head_numbers(head))
    end
end
return 1
