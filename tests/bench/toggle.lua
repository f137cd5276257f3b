-- wrk: toggles by random actors on random targets. Environment: METHOD, PREFIX (path before /TARGET), ACTOR=path|header,
-- TARGETS, ACTORS (how many of each), SEED. Requests are joined here, not by wrk.format: the load shares the machine with the server.
local random = math.random
local targets, actors = tonumber(os.getenv("TARGETS")), tonumber(os.getenv("ACTORS"))
local before = os.getenv("METHOD") .. " " .. os.getenv("PREFIX") .. "/"
local between, after = " HTTP/1.1\r\nHost: bench\r\nX-Actor-Id: ", "\r\n\r\n"
if os.getenv("ACTOR") == "path" then
  between, after = "/", " HTTP/1.1\r\nHost: bench\r\n\r\n"
end
math.randomseed(tonumber(os.getenv("SEED")))

request = function()
  return before .. random(1, targets) .. between .. random(1, actors) .. after
end

done = function(summary, latency)
  local errors = summary.errors
  print(string.format("WEIR requests=%d us=%d failed=%d p50=%d p99=%d", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, latency:percentile(50),
    latency:percentile(99)))
end
