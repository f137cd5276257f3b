-- One step of the forgetting of what an earlier life left behind: dirty targets whose entries have gone would stay for
-- ever. KEYS: heads. ARGV: cursor, how many keys to look at. Reply: the next cursor, 0 at the end.
local heads, pattern = {}, nil
for k = 1, #KEYS do
    local head = read_head(KEYS[k])
    if head then
        heads[head.prefix] = head
        pattern = pattern_of(head.prefix)
    end
end
if not pattern then
    return '0'
end
if #KEYS > 1 then
    -- Of all partitions of the kind.
    pattern = string.gsub(pattern, '%d+(%D*)$', '*%1')
end
local page = call('SCAN', ARGV[1], 'MATCH', pattern .. 't:*', 'COUNT', ARGV[2], 'TYPE', 'hash')
for _, key in ipairs(page[2]) do
    local prefix, id = match(key, '^(.-})([^}].*)$')
    local head = prefix and heads[prefix .. ':']
    local meta = head and call('HGET', key, '')
    if meta and match(meta, '^[mwhcepf][01]') and #meta >= 30 and not is_known(meta, head) then
        local mode, _, _, last = read_meta(meta)
        id = sub(id, 4)
        if last <= head.gone then
            if mode == 'p' then
                forget_document(head, id, owned_by(head, id))
            else
                call('DEL', key, head.prefix .. 'd:' .. id)
            end
        end
    end
end
return page[1]
