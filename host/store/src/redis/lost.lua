-- One step of a search for targets whose newest change is in a hole. KEYS: the head. ARGV: cursor, the last position before
-- the hole, the last in it, how many keys to look at. Reply: the next cursor, 0 at the end; the targets.
local head = read_head(KEYS[1])
if not head then
    return { '0', {} }
end
local prefix, after, until_position, found = head.prefix .. 't:', tonumber(ARGV[2]), tonumber(ARGV[3]), {}
local page = call('SCAN', ARGV[1], 'MATCH', pattern_of(prefix) .. '*', 'COUNT', ARGV[4], 'TYPE', 'hash')
for _, key in ipairs(page[2]) do
    local meta = call('HGET', key, '')
    if is_known(meta, head) or waits(meta, head) then
        local _, _, _, last = read_meta(meta)
        if last > after and last <= until_position then
            found[#found + 1] = sub(key, #prefix + 1)
        end
    end
end
return { page[1], found }
