-- Before each script: heads, targets, and helpers. Keys and fields: see redis/keys.rs.
--
-- A script reads and checks everything before its first write, and its `#!lua` line makes Redis check memory, disk
-- and role before the script begins: it has its whole effect or none.

-- Numbers are doubles: positions, times and counts stay below 2^53, and no id ever becomes a number. `whole` writes
-- them exactly (`..` would write 14 digits) and sooner than Redis, which takes them for fractions.
local call = redis.call
local sub, match, format = string.sub, string.match, string.format
local pack_numbers, unpack_numbers = struct.pack, struct.unpack

local function whole(number)
    return format('%d', number)
end

local function damaged(what)
    error(redis.error_reply('WEIRDAMAGED ' .. what))
end

-- Byte order; `<` of Lua follows the server's locale.
local function less(a, b)
    local shorter = math.min(#a, #b)
    for at = 1, shorter do
        local x, y = string.byte(a, at), string.byte(b, at)
        if x ~= y then
            return x < y
        end
    end
    return #a < #b
end

-- Calls `command key item…` with any number of items, `step` at a time.
local function call_many(command, key, items, step)
    for first = 1, #items, step do
        call(command, key, unpack(items, first, math.min(first + step - 1, #items)))
    end
end

-- The answers of `command key item…` for items `first` to `last` of a table, in one list.
local function ask_many(command, key, items, first, last)
    if last - first < 4000 then
        return call(command, key, unpack(items, first, last))
    end
    local answers = {}
    for from = first, last, 4000 do
        for _, answer in ipairs(call(command, key, unpack(items, from, math.min(from + 3999, last)))) do
            answers[#answers + 1] = answer
        end
    end
    return answers
end

-- MGET of any number of keys.
local function get_many(names)
    if #names == 0 then
        return {}
    end
    if #names <= 4000 then
        return call('MGET', unpack(names))
    end
    local values = {}
    for first = 1, #names, 4000 do
        for _, value in ipairs(call('MGET', unpack(names, first, math.min(first + 3999, #names)))) do
            values[#values + 1] = value
        end
    end
    return values
end

-- The head of a partition, nil when there is none. `key` is `weir:<ns>:{kind:p}:x`.
local function read_head(key)
    local found = call('HMGET', key, 'inc', 'life', 'n', 's')
    if not found[1] then
        return nil
    end
    local last, flushed, floor, o, b, to, tb, old, dirty, docs, gone = unpack_numbers('<ddddddddddd', found[3])
    local w, tw = 0, o > to and -1 or 0
    if #found[3] > 88 then
        w, tw = unpack_numbers('<dd', found[3], 89)
    end
    return {
        key = key, prefix = sub(key, 1, -2), inc = found[1], life = found[2], last = last, flushed = flushed,
        floor = floor, o = o, b = b, to = to, tb = tb, old = old, dirty = dirty, docs = docs, gone = gone,
        w = w, tw = tw, seal = found[4],
    }
end

-- What a journal entry says of itself: its letters, records and digest, its field 'n', and what is in that: time; changes
-- and bytes ever appended up to it; the entry before it, and what all changes before it amounted to, both nil where it is of
-- the format before. Nothing of an entry of another journal.
local function read_entry(entry, head)
    local by_name = {}
    for index = 1, #entry[2], 2 do
        by_name[entry[2][index]] = entry[2][index + 1]
    end
    local n = by_name.n
    if not n or #n < 24 or not by_name.k or not by_name.p or not by_name.m then
        damaged('the journal ' .. head.prefix .. 'j holds an entry that weir did not write: XDEL ' .. head.prefix .. 'j '
            .. entry[1])
    end
    if #n > 24 then
        if #n < 40 or sub(n, 41) ~= head.seal then
            return nil
        end
        by_name.t, by_name.o, by_name.b, by_name.previous, by_name.before = unpack_numbers('<ddddd', n)
    else
        by_name.t, by_name.o, by_name.b = unpack_numbers('<ddd', n)
    end
    return by_name
end

-- What read_head reads in field 'n', as doubles: reading digits takes longer than all the rest.
local function head_numbers(head)
    return pack_numbers('<ddddddddddddd', head.last, head.flushed, head.floor, head.o, head.b, head.to, head.tb, head.old,
        head.dirty, head.docs, head.gone, head.w, head.tw)
end

-- A host answers this reply: redis/reply.rs reads it.
local function head_reply(head)
    return {
        head.inc, head.last, head.flushed, head.floor, head.o - head.to, head.b - head.tb, head.old,
        head.dirty + head.docs,
    }
end

-- What a target's field '' says: mode ('m'issing, 'w'hole, 'h'uge, 'c'ounter, document that 'e'xists or is 'p'ending, 'f'ields
-- of a member, which follow packed),
-- '1' when invalid (of a pending document: when its id may be asked for again), 12 letters of the life; the position of
-- its newest entry and its count, as doubles.
--
-- Redis looks through a small hash field by field, up to 512 of them unless a value is longer than 64 bytes: now and then
-- one is made so long, where the hash is no longer small.
local LONG = string.rep('-', 65)

local function meta_after(begin, last, count)
    if count >= 64 and count % 64 == 0 then
        return begin .. pack_numbers('<dd', last, count) .. LONG
    end
    return begin .. pack_numbers('<dd', last, count)
end

local function meta_of(mode, invalid, life, last, count)
    return meta_after(mode .. invalid .. life, last, count)
end

-- Mode, invalid, life, last and count.
local function read_meta(meta)
    local mode, invalid = match(meta, '^([mwhcepf])([01])')
    if not mode or #meta < 30 then
        damaged('a target is not as weir wrote it')
    end
    return mode, invalid, sub(meta, 3, 14), unpack_numbers('<dd', meta, 15)
end

local function is_known(meta, head)
    return meta and sub(meta, 3, 14) == head.life
end

-- Whether a target is a document that waits, whatever the life: it is of the journal, and no cache. One whose entry is
-- gone does not wait; the drop of that entry did not name it.
local function waits(meta, head)
    if not meta or sub(meta, 1, 1) ~= 'p' then
        return false
    end
    local _, _, _, last = read_meta(meta)
    return last > head.gone
end

-- The key of what the owner of a document has, nil when there is no document. Fails when it is no sorted set: before the
-- first write.
local function owned_by(head, id)
    local owner = call('HGET', head.prefix .. 't:' .. id, 'a')
    local owned = owner and head.prefix .. 'o:' .. owner
    if owned then
        call('ZCARD', owned)
    end
    return owned or nil
end

-- A pattern of SCAN that stands for this text alone.
local function pattern_of(text)
    return (string.gsub(text, '[%*%?%[%]\\]', '\\%0'))
end

-- Forgets a document, and that its owner has it.
local function forget_document(head, id, owned)
    if owned then
        call('ZREM', owned, id)
    end
    call('DEL', head.prefix .. 't:' .. id)
end
