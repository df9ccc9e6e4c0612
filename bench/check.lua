-- Counts the answers that are not what they should be. Arguments: the status, and the length of the body or -1 for any.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  status = tonumber(arguments[1])
  length = tonumber(arguments[2])
  wrong = 0
end

function response(got, headers, body)
  if got ~= status or (length >= 0 and #body ~= length) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local all = 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("wrong")
  end
  print("Wrong answers: " .. all)
end
