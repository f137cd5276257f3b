-- What is known of a target, and of one pair. KEYS: the head. ARGV: target, actor.
-- Reply: mode ('cold' when unknown), count, dirty, invalid, pair (since, 'absent' or 'unknown'; of a document that waits
-- its owner, of a member its settings), ttl in ms, position of the newest entry.
local head = read_head(KEYS[1])
local key = head and head.prefix .. 't:' .. ARGV[1]
local found = head and call('HMGET', key, '', ARGV[2])
if head and waits(found[1], head) then
    local _, _, _, last = read_meta(found[1])
    return { 'p', 0, 1, 0, call('HGET', key, 'a'), -1, last }
end
if not head or not is_known(found[1], head) or sub(found[1], 1, 1) == 'p' then
    return { 'cold', 0, 0, 0, 'unknown', -1, 0 }
end
local mode, invalid, _, last, count = read_meta(found[1])
local pair = found[2]
if mode == 'f' then
    pair = sub(found[1], 31)
elseif not pair then
    pair = mode == 'h' and 'unknown' or 'absent'
elseif pair == '-' then
    pair = 'absent'
end
return {
    mode, count, last > head.flushed and 1 or 0, tonumber(invalid), pair, call('PTTL', key), last,
}
