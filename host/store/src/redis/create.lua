-- A batch of creates. ARGV: see batch.lua; then per partition: number of its operations; per operation: number of its
-- documents, '1' when its ids may be asked for again ('0': they were just made); per document: id (tagged), actor
-- (tagged), record, place of the body in it. Reply: heads; one letter per operation (see `evaluate`); of the operations
-- that need more numbers: number of the operation, these.
local answers, all = {}, {}
-- By the number of the operation: its head, its documents.
local head_of, is_asked_again, first_document = {}, {}, {}
-- By the number of the document.
local ids, tagged, owners, records, places, of_operation = {}, {}, {}, {}, {}, {}
local heads, taken = {}, {}

local operations, documents = 0, 0
for k = 1, #KEYS do
    local head = enter(KEYS[k])
    heads[k], head.known, head.records = head, {}, {}
    at = at + 1
    for _ = 1, tonumber(ARGV[at - 1]) do
        operations = operations + 1
        all[operations], head_of[operations], first_document[operations] = operations, head, documents + 1
        is_asked_again[operations] = ARGV[at + 1] == '1'
        local size = tonumber(ARGV[at])
        at = at + 2
        for document = documents + 1, documents + size do
            tagged[document], owners[document] = ARGV[at], head.prefix .. 'o:' .. ARGV[at + 1]
            ids[document], records[document], places[document] = sub(ARGV[at], 2), ARGV[at + 2], tonumber(ARGV[at + 3])
            of_operation[document] = operations
            at = at + 4
        end
        documents = documents + size
    end
end
first_document[operations + 1] = documents + 1

-- What is known of an id: 'p' it waits, 'e' it exists, 'm' it is missing, 'u' nothing. Read once.
local function known(head, document)
    local id = ids[document]
    local is = head.known[id]
    if not is then
        local meta = call('HGET', head.prefix .. 't:' .. id, '')
        is = 'u'
        if waits(meta, head) then
            is = 'p'
        elseif is_known(meta, head) then
            local mode = read_meta(meta)
            is = (mode == 'e' or mode == 'm') and mode or 'u'
        end
        head.known[id] = is
    end
    return is
end

-- The indexes of documents, from 0, which SQL must be asked for; or the one that exists.
local function find(operation)
    local head, first, cold, seen = head_of[operation], first_document[operation], {}, {}
    for document = first, first_document[operation + 1] - 1 do
        local is = known(head, document)
        -- The same id may be twice in one request.
        if is == 'p' or is == 'e' or seen[ids[document]] then
            return nil, document - first
        end
        seen[ids[document]] = true
        if is == 'u' and is_asked_again[operation] then
            cold[#cold + 1] = document - first
        end
    end
    return cold
end

-- Evaluates an operation. Letters, and what is in `extra` after its number: 'd' done: nothing · 'e' exists: index · 'c'
-- cold: how many, their indexes · 'x' conflict: nothing · 'r' replayed: see `replay`.
local function evaluate(operation)
    local has_key = fingerprints[operation]
    local replayed = has_key and replay(operation)
    if replayed then
        return replayed
    end
    local cold, existing = find(operation)
    if existing then
        number(operation)
        number(existing)
        return 'e'
    end
    if #cold > 0 then
        number(operation)
        number(#cold)
        for _, index in ipairs(cold) do
            number(index)
        end
        return 'c'
    end
    local head = head_of[operation]
    for document = first_document[operation], first_document[operation + 1] - 1 do
        head.known[ids[document]] = 'p'
        head.records[#head.records + 1] = records[document]
        taken[#taken + 1] = document
        -- Fails here, before the first write, when it is no sorted set.
        call('ZCARD', owners[document])
    end
    head.changes = #head.records
    if has_key then
        remember(operation, 0, 0, at_ms, 1, head.position, -1, 0)
    end
    return 'd'
end
each_in_order(all, function(operation)
    answers[operation] = evaluate(operation)
end)

-- Who owns what is left of earlier documents with these ids.
local left = {}
for index, document in ipairs(taken) do
    left[index] = owned_by(head_of[of_operation[document]], ids[document]) or false
end

-- Writes. Nothing below can fail.
for index, document in ipairs(taken) do
    local operation, id, record = of_operation[document], ids[document], records[document]
    local head = head_of[operation]
    forget_document(head, id, left[index])
    local meta = meta_of('p', is_asked_again[operation] and '1' or '0', head.life, head.position, 0)
    call('HSET', head.prefix .. 't:' .. id, '', meta, 'i', tagged[document], 'a', sub(owners[document], #head.prefix + 3),
        'b', sub(record, places[document]), 't', at_text)
    call('ZADD', owners[document], whole(head.position), id)
    head.docs = head.docs + 1
end
keep_limits_and_outcomes()
local reply = {}
for k = 1, #KEYS do
    append(heads[k], string.rep('d', #heads[k].records), table.concat(heads[k].records))
    reply[k] = head_reply(heads[k])
end
return { reply, table.concat(answers), extra }
