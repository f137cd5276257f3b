-- For scripts that apply a batch: what it says of itself, its idempotency keys and limits, the entries that it leaves.
-- KEYS: heads of the partitions. ARGV begins with: when it is, by the host's clock, in ms (then ' ', and in tests the time that
-- rates and windows go by; else that is the server's), digest, ttl of outcomes ms, incarnation and life for a head
-- that must be made, order ('' or the numbers of the operations in the order of evaluation), number of operations with
-- an idempotency key; per such: number of the operation, and fingerprint (16 bytes) with the name of the outcome's key.
-- What follows is the script's own. Operations have numbers, from 1, in the order of sending.
--
-- In a cluster one call carries one partition; outcomes lie in the partition of their operation.
-- Everything is read and evaluated before the first write.
local at_text, told = match(ARGV[1], '^(%d+) (%d*)$')
local digest, outcome_ttl, order, at_ms = ARGV[2], ARGV[3], ARGV[6], tonumber(at_text)
local ceil, floor, min, max, byte = math.ceil, math.floor, math.min, math.max, string.byte

local clock = call('TIME')
clock = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
-- What rates and windows are measured by, of all hosts.
local now_us = told ~= '' and told * 1000 or clock
local now = floor(now_us / 1000)

-- Idempotency keys by the number of the operation. `at`: the first argument that was not read yet.
local at, fingerprints, outcome_names, outcomes, new_outcomes = 8, {}, {}, {}, {}
local names = {}
for _ = 1, tonumber(ARGV[7]) do
    local operation, key = tonumber(ARGV[at]), ARGV[at + 1]
    fingerprints[operation], outcome_names[operation] = sub(key, 1, 16), sub(key, 17)
    names[#names + 1] = sub(key, 17)
    at = at + 2
end
for index, value in ipairs(get_many(names)) do
    outcomes[names[index]] = value
end

-- What is replied besides one letter for each operation: of those that need it, their number and more numbers.
local extra = {}

local function number(value)
    extra[#extra + 1] = value
end

-- The head of a partition that the batch enters; `position` is where its entry will be.
local function enter(key)
    local head = head_or_fresh(key, ARGV[4], ARGV[5])
    -- Fails here, before the first write, when it is no stream.
    call('XLEN', head.prefix .. 'j')
    head.previous = max(head.last, head.gone)
    head.position, head.changes = max(head.previous + 1, clock), 0
    return head
end

-- Calls `evaluate` for the operations: those in `all`, or where an order was sent all of them, in that order.
local function each_in_order(all, evaluate)
    if order == '' then
        for _, operation in ipairs(all) do
            evaluate(operation)
        end
    else
        for text in string.gmatch(order, '%d+') do
            evaluate(tonumber(text))
        end
    end
end

-- Answers with the first outcome ('r': code, active, count, changed, position, remaining, reset) or a conflict ('x');
-- nil when the key is new. Of a create the count is its time.
local function replay(operation)
    local before = outcomes[outcome_names[operation]]
    if not before then
        return nil
    end
    if sub(before, 1, 16) ~= fingerprints[operation] then
        return 'x'
    end
    local parts = { match(before, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%-?%d+) (%d+)$', 17) }
    if not parts[1] then
        damaged('an outcome is not as weir wrote it')
    end
    number(operation)
    for part = 1, 7 do
        number(tonumber(parts[part]))
    end
    return 'r'
end

local function remember(operation, code, active, count, changed, position, remaining, reset)
    local name = outcome_names[operation]
    local outcome = fingerprints[operation] .. code .. ' ' .. active .. ' ' .. whole(count) .. ' ' .. changed .. ' '
        .. whole(position) .. ' ' .. remaining .. ' ' .. whole(reset)
    outcomes[name], new_outcomes[name] = outcome, outcome
end

-- Limits: named while the operations are read, read all at once, then evaluated.
local limit_names, limit_place, tats, new_tats = {}, {}, {}, {}

local function name_limit(operation, head, id, actor)
    limit_names[#limit_names + 1] = head.prefix .. 'l:' .. #id .. ':' .. id .. ':' .. actor
    limit_place[operation] = #limit_names
end

local function read_limits()
    tats = get_many(limit_names)
end

-- The rest of a limit, and when it is whole again; nothing when it is used up. The same as store/limit.rs.
local function pass_limit(operation, interval, tolerance, counts_for)
    local place = limit_place[operation]
    local name = limit_names[place]
    local ahead = min(max((new_tats[name] or tonumber(tats[place] or 0)) - now_us, 0), tolerance)
    local after = ahead + interval
    if after > tolerance then
        number(operation)
        number(ceil((after - tolerance) / 1000))
        number(ceil(ahead / 1000))
        return nil
    end
    if counts_for then
        new_tats[name] = now_us + after
    end
    return floor((tolerance - after) / interval), ceil(after / 1000)
end

local function keep_limits_and_outcomes()
    for name, tat in pairs(new_tats) do
        call('PSETEX', name, whole(ceil((tat - now_us) / 1000) + 1000), whole(tat))
    end
    for name, outcome in pairs(new_outcomes) do
        call('PSETEX', name, outcome_ttl, outcome)
    end
end

-- Appends the entry of a partition, if anything changed there: a letter for each record, and the records. `head.added`:
-- what the changes amount to, where that is not their number.
local function append(head, letters, records)
    if head.changes == 0 then
        return
    end
    if head.o == head.to then
        head.old = at_ms
    end
    if not head.seal then
        -- Begun before entries named the one before them.
        head.seal = seal_of(head.key, ARGV[5])
        call('HSET', head.key, 's', head.seal)
    end
    local amount = head.w
    head.o, head.b, head.last = head.o + head.changes, head.b + #records + #letters + 65, head.position
    head.w = min(amount + (head.added or head.changes), 9007199254740991)
    call('XADD', head.prefix .. 'j', whole(head.position) .. '-0', 'k', letters, 'p', records, 'm', digest,
        'n', pack_numbers('<ddddd', at_ms, head.o, head.b, head.previous, amount) .. head.seal)
    call('HSET', head.key, 'n', head_numbers(head))
end
