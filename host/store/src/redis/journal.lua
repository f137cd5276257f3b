-- Reads the journal. KEYS: the head. ARGV: incarnation, position, number of changes and of bytes after which it stops.
-- Reply: code (0 entries, 1 other incarnation, 3 no head); the head; entries, 5 each: id, letters of the records, records,
-- digest, field 'n'; what the host needs to follow the chain: the last position that was trimmed, changes trimmed and what
-- they amounted to (-1 when unknown), changes ever appended and what they amounted to, 1 when these are all entries;
-- the entry at the position, 5 as above, nothing when it is not there. What lies there of another journal is left out.
local head = read_head(KEYS[1])
if not head then
    return { 3 }
end
if head.inc ~= ARGV[1] then
    return { 1, head_reply(head), {} }
end
local stream, position = head.prefix .. 'j', tonumber(ARGV[2])
local wanted, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local there, seen, seen_bytes = {}, head.to, head.tb
if position > head.gone then
    local entry = call('XRANGE', stream, ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
    entry = entry and read_entry(entry, head)
    if entry then
        there, seen, seen_bytes = { ARGV[2] .. '-0', entry.k, entry.p, entry.m, entry.n }, entry.o, entry.b
    end
end
local from, entries, last, last_bytes = whole(math.max(position, head.gone)), {}, seen, seen_bytes

local function is_enough()
    return last - seen >= wanted or last_bytes - seen_bytes >= bytes_max
end

-- Pages grow, so that entries of megabytes are not read in vain.
local count, is_all = 1, false
repeat
    count = math.min(count * 2, 32)
    local page = call('XRANGE', stream, '(' .. from .. '-0', '+', 'COUNT', count)
    is_all = #page < count
    for index, entry in ipairs(page) do
        local field = read_entry(entry, head)
        from = match(entry[1], '^%d+')
        if field then
            entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = entry[1], field.k, field.p
            entries[#entries + 1], entries[#entries + 2] = field.m, field.n
            last, last_bytes = field.o, field.b
            if is_enough() then
                is_all = is_all and index == #page
                break
            end
        end
    end
until is_all or is_enough()
return {
    0, head_reply(head), entries,
    { whole(head.gone), whole(head.to), whole(head.tw), whole(head.o), whole(head.w), is_all and 1 or 0 }, there,
}
