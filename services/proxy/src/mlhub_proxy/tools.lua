-- Tools of workspaces: which paths are theirs, and whether the agent lets a request through to them. What takes thought
-- is the agent's; this asks it by its socket, and remembers a yes for as long as the agent says. Nothing gets through
-- that the agent has not said yes to: a failure in here leaves the request where the configuration refuses it.

local SESSION = "mlhub-tools"
local MOST = 10000      -- answers remembered by each thread
local MOST_REFUSED = 300 -- of one address within the ten seconds of the table `strangers`
local PATIENCE = 6000   -- ms that the agent gets; four times as long if it does not even take the question
local BETWEEN_US = { connection = true, ["content-length"] = true, date = true, server = true }
local HARMLESS = { GET = true, HEAD = true, OPTIONS = true }

local let_in, remembered = {}, 0

-- A cookie's name without the prefix that binds it to its host or to HTTPS.
local function plain(name)
  return (name:gsub("^__%a+%-", ""))
end

-- The hub's cookies and our own, which no tool may see or set.
local function is_hubs(name)
  name = plain(name)
  return name:find("^jupyterhub%-") or name:find("^service%-") or name:find("^mlhub%-")
end

local function is_ours(name)
  return plain(name) == SESSION
end

-- The session's name here: over HTTPS one that no other host of the domain can set, where its path lets it.
local function session_name(txn, site)
  if txn:get_var("txn.scheme") ~= "https" then return SESSION end
  return (site and "__Host-" or "__Secure-") .. SESSION
end

-- The value of that cookie, empty if there is none; nil if there are two, of which somebody else has set one.
local function session_in(cookie, name)
  local found
  for pair in cookie:gmatch("[^;]+") do
    local key, value = pair:match("^%s*([^=%s]*)%s*=(.*)$")
    if key == name then
      if found then return nil end
      found = value
    end
  end
  return found or ""
end

local function without(header, is_hidden)
  local kept = {}
  for pair in header:gmatch("[^;]+") do
    if not is_hidden(pair:match("^%s*([^=%s]*)")) then
      kept[#kept + 1] = pair
    end
  end
  return table.concat(kept, ";"):gsub("^%s+", "")
end

local function hide(txn, cookie, is_hidden)
  if cookie == "" then return end
  local kept = without(cookie, is_hidden)
  if kept == "" then
    txn.http:req_del_header("cookie")
  elseif kept ~= cookie then
    txn.http:req_set_header("cookie", kept)
  end
end

-- A path as a server may read it that decodes first, merges slashes and walks dots.
local function as_walked(path)
  local parts = {}
  local decoded = path:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  for part in decoded:gmatch("[^/\\]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/") .. "/"
end

local function is_foreign(txn)
  local site, origin = txn.sf:req_fhdr("sec-fetch-site"), txn.sf:req_fhdr("origin")
  if site == "cross-site" or site == "same-site" then return true end
  if origin == "" then return false end
  local host = origin:match("^https?://(.+)$")
  return not host or host:lower() ~= txn.sf:req_fhdr("host"):lower()
end

local function answer(txn, status, headers, body)
  local reply = txn:reply{ status = status }
  for name, values in pairs(headers) do
    if not BETWEEN_US[name] and name:sub(1, 8) ~= "x-tools-" then
      for _, value in pairs(values) do reply:add_header(name, value) end
    end
  end
  reply:set_body(body or "")
  txn:done(reply)
end

local function ask(txn, headers)
  local told = {}
  for name, value in pairs(headers) do
    if value ~= "" then told[name] = { value } end
  end
  local said = core.httpclient():get{ url = "http://agent/check", dst = "unix@check.sock", timeout = PATIENCE, headers = told }
  local from_agent = said and said.headers and said.headers["x-tools-answer"]
  return from_agent and said or nil
end

local function refuse(txn, status, words, headers)
  headers["content-type"], headers["cache-control"] = { "text/plain" }, { "no-store" }
  answer(txn, status, headers, words .. "\n")
end

local function forget(key)
  if key and let_in[key] then
    let_in[key] = nil
    remembered = remembered - 1
  end
end

local function remember(key, yes)
  if remembered >= MOST then
    let_in, remembered = {}, 0
  end
  if not let_in[key] then
    remembered = remembered + 1
  end
  let_in[key] = yes
end

-- What the agent says of a request; nil if it does not let it through, and the client has its answer.
local function permission(txn, tool, session)
  local authorization, method = txn.sf:req_fhdr("authorization"), txn.sf:method()
  local is_upgrade = method == "CONNECT" or txn.sf:req_fhdr("upgrade") ~= ""
  local is_risky = (is_upgrade or not HARMLESS[method]) and is_foreign(txn)
  local key = not is_risky and (session ~= "" or authorization ~= "")
    and txn.c:sha2(table.concat({ tool.route, tool.number, session, authorization }, "\n"), 256)
  local date = core.now()
  local now = date.sec + date.usec / 1000000
  local yes = key and let_in[key]
  if yes and yes.till > now then
    return yes
  end
  -- Whoever was let in a moment ago is not held up by strangers who share the address.
  if not yes and txn.f:sc1_gpc0_rate() > MOST_REFUSED then
    refuse(txn, 429, "Too many requests without a login come from your address.", { ["retry-after"] = { "10" } })
    return nil
  end
  local query = txn.sf:query()
  local said = ask(txn, {
    ["x-name"] = tool.name, ["x-generation"] = tool.generation, ["x-port"] = tool.number, ["x-below"] = tool.below,
    ["x-query"] = query, ["x-site"] = tool.site or "", ["x-method"] = method, ["x-upgrade"] = is_upgrade and "1" or "",
    ["x-foreign"] = is_risky and "1" or "", ["x-client"] = tostring(txn:get_var("txn.client")), ["x-session"] = session,
    authorization = authorization, accept = txn.sf:req_fhdr("accept"),
    ["sec-fetch-mode"] = txn.sf:req_fhdr("sec-fetch-mode"), ["sec-fetch-dest"] = txn.sf:req_fhdr("sec-fetch-dest"),
  })
  if not said then
    txn:set_var("txn.tool", "away")
    return nil
  end
  if said.status ~= 200 then
    if said.status == 401 or said.status == 302 then
      txn.f:sc1_inc_gpc0()
      forget(key)
    end
    answer(txn, said.status, said.headers, said.body)
    return nil
  end
  local function told(name) return said.headers[name] and said.headers[name][0] or "" end
  yes = {
    till = now + (tonumber(told("x-tools-keep")) or 0), user = told("x-tools-user"), hides = told("x-tools-hide") == "1",
    ip = told("x-tools-ip"), port = told("x-tools-port"),
  }
  if key and yes.till > now then
    remember(key, yes)
  end
  return yes
end

-- What of a workspace an address names: a port of it, a tool that its image serves itself, or neither.
local function named(route, path, site)
  local name, generation, length, serves = route:match("^[^|]*|[^|]*|([^|]*)|([^|]*)|(%d+)|(%a+)$")
  if not name then return nil end
  if site then
    return {
      route = route, name = name, generation = generation, below = path:sub(2), prefix = "", rest = path,
      site = site, number = site:match("^(%d+)%-%-") or "0",
    }
  end
  local prefix, below = path:sub(1, tonumber(length)), path:sub(tonumber(length) + 1)
  local tool = { route = route, name = name, generation = generation, below = below, number = "", rest = "" }
  if serves == "own" then
    -- Its server may take capital letters for small ones.
    return as_walked(path):lower():find(as_walked(prefix):lower() .. "tools/", 1, true) == 1 and tool or nil
  end
  tool.number, tool.rest = below:match("^tools/(%d+)(.*)$")
  if not tool.number or tool.rest:find("^[^/]") then return nil end
  tool.prefix = prefix .. "tools/" .. tool.number
  return tool
end

core.register_action("tools", { "http-req" }, function(txn)
  local path, cookie = txn.sf:path(), txn.sf:req_fhdr("cookie")
  local tool = named(txn:get_var("txn.route"), path, txn:get_var("txn.site"))
  if not tool then
    hide(txn, cookie, is_ours)
    txn:set_var("txn.tool", "none")
    return
  end
  if tool.prefix and tool.rest == "" then
    local query = txn.sf:query()
    answer(txn, 307, { location = { path .. "/" .. (query ~= "" and "?" .. query or "") } })
    return
  end
  local session = session_in(cookie, session_name(txn, tool.site))
  if not session then
    refuse(txn, 400, "This browser holds two logins for one address. Remove its cookies for this site.", {})
    return
  end
  local yes = permission(txn, tool, session)
  if not yes then return end
  if not tool.prefix then
    hide(txn, cookie, is_ours)
    txn:set_var("txn.tool", "own")
    return
  end
  hide(txn, cookie, is_hubs)
  if yes.hides then txn.http:req_del_header("authorization") end
  txn:set_var("txn.name", tool.name)
  txn:set_var("txn.ip", yes.ip)
  txn:set_var("txn.port", yes.port)
  txn:set_var("txn.tool_user", yes.user)
  txn:set_var("txn.tool_prefix", tool.prefix)
  txn:set_var("txn.tool_path", tool.rest)
  txn:set_var("txn.tool", "port")
end, 0)

-- A tool shares its host with the hub and other tools: its cookies stay below its own address.
local function tamed(cookie, prefix)
  -- Browsers may send what has no name as if its value were name and value.
  cookie = cookie:match("^[%s;]*(.*)$")
  local name = cookie:match("^[^=;%s]*")
  if name == "" or is_hubs(name) then return nil end
  local kept, path = {}, "/"
  for part in cookie:gmatch("[^;]+") do
    local word = part:match("^%s*([^=%s]*)"):lower()
    if #kept > 0 and word == "path" then
      path = part:match("=%s*(/.*)$") or "/"
    elseif #kept == 0 or word ~= "domain" then
      kept[#kept + 1] = part
    end
  end
  if (path .. "/"):sub(1, #prefix + 1) ~= prefix .. "/" then
    path = prefix .. path
  end
  kept[#kept + 1] = " Path=" .. path
  return table.concat(kept, ";")
end

core.register_action("tool_cookies", { "http-res" }, function(txn)
  local set = txn.http:res_get_headers()["set-cookie"] or {}
  -- A semicolon would end the path where the cookie's next attribute begins.
  local prefix = txn:get_var("txn.tool_prefix"):gsub("[;,]", { [";"] = "%3B", [","] = "%2C" })
  txn.http:res_del_header("set-cookie")
  for index = 0, #set do
    local cookie = set[index] and tamed(set[index], prefix)
    if cookie then txn.http:res_add_header("set-cookie", cookie) end
  end
end, 0)
