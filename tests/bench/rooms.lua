-- wrk: joins by ever new actors, or the status of random tokens. Environment: MODE=join|status, FIRST (first actor of a join),
-- TOKENS (file with one token a line), SEED.
local random = math.random
math.randomseed(tonumber(os.getenv("SEED")))
local path = "/v1/rooms/concert/1/tokens"
if os.getenv("MODE") == "join" then
  local actor = tonumber(os.getenv("FIRST"))
  request = function()
    actor = actor + 1
    return "POST " .. path .. " HTTP/1.1\r\nHost: bench\r\nX-Actor-Id: " .. actor .. "\r\nContent-Length: 0\r\n\r\n"
  end
else
  local requests = {}
  for token in io.lines(os.getenv("TOKENS")) do
    requests[#requests + 1] = "GET " .. path .. "/" .. token .. " HTTP/1.1\r\nHost: bench\r\n\r\n"
  end
  request = function()
    return requests[random(1, #requests)]
  end
end

done = function(summary, latency)
  local errors = summary.errors
  print(string.format("WEIR requests=%d us=%d failed=%d p50=%d p99=%d", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, latency:percentile(50),
    latency:percentile(99)))
end
