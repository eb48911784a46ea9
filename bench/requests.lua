-- wrk's side of a round: sends prepared requests, one after the other, and prints what came of it as one line of JSON.
--
-- wrk ... -s requests.lua URL -- FILE once|again
--
-- FILE holds, for each request, the number of its bytes on a line and then the bytes. With `once` none is sent twice:
-- when they have run out, an address that does not exist is asked for, which the round counts as errors.

local requests, place, again = {}, 0, false

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for size in function() return file:read("*l") end do
    requests[#requests + 1] = file:read(tonumber(size))
  end
  file:close()
  again = args[2] == "again"
end

function request()
  place = place + 1
  if place > #requests then
    if not again then
      return "GET /run-out-of-prepared-requests HTTP/1.1\r\nHost: localhost\r\n\r\n"
    end
    place = 1
  end
  return requests[place]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "microseconds": %d, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
