-- portable.lua: turns the documents of one Quarto book into one pandoc document.
--
-- tools/portable.py writes a job file (JSON) and runs pandoc on empty input with this filter.
-- Pass 1 reads every document, numbers chapters, sections, floats, equations and callouts the way
-- Quarto does, and rewrites Quarto's own constructs (cells, callouts, tabsets, layouts, conditional
-- content) into plain blocks and raw markup of the target.  Pass 2, when every number is known,
-- resolves cross references and links.  Citations are left for --citeproc, which runs afterwards.

local job, html                       -- the job file; whether the target is HTML (else Typst)
local refs, used = {}, {}             -- id -> {kind, number}; every id given out so far
local report = {names = {}, unresolved = {}, warnings = {}}  -- names: id -> "Figure 2.1"
local doc, chapter, counts, section   -- state of the document that pass 1 is in
local parent                          -- the float around the current one (sub-figures), or nil
local transform                       -- pass 1 on a list of blocks (defined below)

local LABEL = {fig = "Figure", tbl = "Table", lst = "Listing", eq = "Equation", sec = "Section",
  nte = "Note", tip = "Tip", wrn = "Warning", imp = "Important", cau = "Caution"}
local NBSP = "\u{a0}"

local function raw(text) return pandoc.RawBlock(html and "html" or "typst", text) end
local function escape(s) return (s:gsub("[&<>\"]",
  {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"})) end
local function html_id(id) return id ~= "" and (' id="%s"'):format(escape(id)) or "" end
local function typst_id(id) return id ~= "" and (" <%s>"):format(id) or "" end
local function join_inlines(first, rest)
  local all = pandoc.Inlines{pandoc.Str(first), pandoc.Space()}
  all:extend(rest)
  return all
end
local function markdown(s) return pandoc.utils.blocks_to_inlines(pandoc.read(s, "markdown").blocks) end
local function kind_of(id)  -- "fig-x" -> "fig", if that is a kind of cross reference
  local kind = id:match("^(%l+)%-")
  return LABEL[kind] and kind
end
local function number(kind)
  counts[kind] = (counts[kind] or 0) + 1
  return (chapter ~= "" and chapter .. "." or "") .. counts[kind]
end
local function register(id, kind, num)
  if refs[id] then table.insert(report.unresolved, "#" .. id .. " (defined twice)") end
  refs[id] = {kind = kind, number = num}
end
local function join(...)  -- blocks and lists of blocks -> one list
  local all = pandoc.Blocks{}
  for _, part in ipairs{...} do
    if pandoc.utils.type(part) == "Block" then all:insert(part) else all:extend(part) end
  end
  return all
end

-- Floats: figures, tables, listings -------------------------------------------------------------

local function float(id, kind, caption, body)
  local sub = parent and parent.kind == kind
  local num, prefix
  if sub then
    parent.subs = parent.subs + 1
    prefix = ("(%s)"):format(string.char(96 + parent.subs))
    num = parent.number .. (html and NBSP .. prefix or prefix:sub(2, 2))
  else
    num = number(kind)
    prefix = LABEL[kind] .. NBSP .. num
  end
  register(id, kind, num)
  local outer = parent
  parent = {kind = kind, number = num, subs = 0}
  body = transform(body)
  parent = outer
  local text = pandoc.Plain(#caption == 0 and prefix
    or join_inlines(prefix .. (sub and "" or ":"), caption))
  if html then
    local cap = join(raw "<figcaption>", text, raw "</figcaption>")
    local open = raw(('<figure%s class="float %s%s">'):format(html_id(id), kind, sub and " sub" or ""))
    if kind == "fig" then return join(open, body, cap, raw "</figure>") end
    return join(open, cap, body, raw "</figure>")
  end
  return join(raw(('#float("%s")['):format(kind .. (sub and "-sub" or ""))), text, raw "][",
    body, raw("]" .. typst_id(id)))
end

local function set_colwidths(tbl, spec)  -- tbl-colwidths="[70,30]"
  local widths = {}
  for w in (spec or ""):gmatch("[%d.]+") do table.insert(widths, tonumber(w)) end
  local total = 0
  for _, w in ipairs(widths) do total = total + w end
  if #widths == #tbl.colspecs then
    tbl.colspecs = tbl.colspecs:map(function(c) return {c[1], table.remove(widths, 1) / total} end)
  end
end

local function Table(tbl)
  set_colwidths(tbl, tbl.attributes["tbl-colwidths"])
  local id = tbl.identifier
  if kind_of(id) ~= "tbl" then return nil end
  local caption = pandoc.utils.blocks_to_inlines(tbl.caption.long)
  tbl.attr, tbl.caption = pandoc.Attr(), {long = {}}
  return float(id, "tbl", caption, {tbl}), false
end

local function Figure(fig)
  local id = fig.identifier
  if kind_of(id) ~= "fig" then return nil end
  return float(id, "fig", pandoc.utils.blocks_to_inlines(fig.caption.long), fig.content), false
end

-- A layout: its cells (blocks; a paragraph of images gives one cell per image) in rows.
local function cells_of(blocks)
  local cells = pandoc.List{}
  for _, b in ipairs(blocks) do
    local images = (b.t == "Para" or b.t == "Plain")
      and b.content:filter(function(i) return i.t ~= "Space" and i.t ~= "SoftBreak" end) or pandoc.List{}
    if #images > 1 and not images:find_if(function(i) return i.t ~= "Image" end) then
      for _, image in ipairs(images) do cells:insert(pandoc.Para{image}) end
    else
      cells:insert(b)
    end
  end
  return cells
end

local function panel(attributes, blocks)
  local cells, rows = cells_of(blocks), {}
  if attributes.layout then
    for row in attributes.layout:gsub("^%s*%[(.*)%]%s*$", "%1"):gmatch("%b[]") do
      local widths = {}
      for w in row:gmatch("[%d.]+") do table.insert(widths, w .. "fr") end
      table.insert(rows, widths)
    end
  end
  if #rows == 0 then
    local n = tonumber(attributes["layout-ncol"])
      or math.ceil(#cells / (tonumber(attributes["layout-nrow"]) or #cells))
    for _ = 1, math.ceil(#cells / n) do
      local widths = {}
      for i = 1, n do widths[i] = "1fr" end
      table.insert(rows, widths)
    end
  end
  local out, next_cell = pandoc.Blocks{}, 1
  for _, widths in ipairs(rows) do
    if not cells[next_cell] then break end
    out:insert(raw(html and ('<div class="layout" style="grid-template-columns:%s">')
      :format(table.concat(widths, " ")) or ("#panel((%s,))"):format(table.concat(widths, ", ")) .. "["))
    for i = 1, #widths do
      local cell = cells[next_cell]
      if html then out:insert(raw "<div>") elseif i > 1 then out:insert(raw "][") end
      if cell then out:extend(transform{cell}) end
      if html then out:insert(raw "</div>") end
      next_cell = next_cell + 1
    end
    out:insert(raw(html and "</div>" or "]"))
  end
  return out
end

local function has_layout(a) return a.layout or a["layout-ncol"] or a["layout-nrow"] end

local function lift_code(blocks)  -- code of a cell stays outside its figure, table or layout
  local code = pandoc.Blocks{}
  blocks = blocks:walk{CodeBlock = function(c)
    if c.classes:includes "cell-code" then code:insert(c) return {} end
  end}
  return transform(code), blocks
end

local function float_div(div, kind)
  local id, attributes, caption = div.identifier, div.attributes, nil
  local code, body = lift_code(div.content)
  for _, key in ipairs{kind .. "-cap", "caption"} do
    if attributes[key] then caption = markdown(attributes[key]) break end
  end
  local last = body[#body]
  if not caption and last and last.t == "Para"
      and not (#last.content == 1 and last.content[1].t == "Image") then
    caption = last.content
    body:remove(#body)
  end
  body = body:walk{Table = function(t)
    set_colwidths(t, attributes["tbl-colwidths"])
    if not caption and t.identifier == "" and kind == "tbl" then
      caption = pandoc.utils.blocks_to_inlines(t.caption.long)
      t.caption = {long = {}}
    end
    return t
  end}
  local n, subs = 0, 0
  for sub in (attributes[kind .. "-subcap"] or ""):gmatch '"([^"]*)"' do  -- ["One","Two"]
    repeat n = n + 1 until not body[n] or (body[n].classes or {})[2] == "cell-output-display"
    if body[n] then
      subs = subs + 1
      body[n].identifier, body[n].attributes[kind .. "-cap"] = id .. "-" .. subs, sub
    end
  end
  if has_layout(attributes) then  -- laid out inside float(), where sub-figures see their parent
    body = {pandoc.Div(body, pandoc.Attr("", {}, attributes))}
  end
  return join(code, float(id, kind, caption or pandoc.Inlines{}, body))
end

-- Callouts, tabsets, conditional content ----------------------------------------------------------

local function callout(div, kind)
  local body, title = div.content, nil
  if div.attributes.title then
    title = markdown(div.attributes.title)
  elseif body[1] and body[1].t == "Header" then
    title = body[1].content
    body:remove(1)
  end
  local given = title ~= nil
  if not given and not (div.attributes.appearance or ""):match("^[sm]i") then  -- not simple or minimal
    title = pandoc.Inlines{pandoc.Str(kind:gsub("^%l", string.upper))}
  end
  local ref = kind_of(div.identifier)
  if ref then
    local num = number(ref)
    register(div.identifier, ref, num)
    title = given and join_inlines(LABEL[ref] .. NBSP .. num .. ":", title)
      or pandoc.Inlines{pandoc.Str(LABEL[ref] .. NBSP .. num)}
  end
  local id, collapse = div.identifier, div.attributes.collapse
  title = title and pandoc.Plain(title)
  body = transform(body)
  if not html then
    return join(raw(('#callout("%s")['):format(kind)), title or {}, raw "][", body,
      raw("]" .. typst_id(id)))
  elseif collapse and title then
    return join(raw(('<details%s class="callout %s"%s><summary>'):format(html_id(id), kind,
      collapse == "false" and " open" or "")), title, raw "</summary>", body, raw "</details>")
  end
  return join(raw(('<div%s class="callout %s">'):format(html_id(id), kind)), title
    and join(raw '<p class="callout-title">', title, raw "</p>") or {}, body, raw "</div>")
end

local tabsets = 0
local function tabset(div)
  local tabs, level = pandoc.List{}, nil
  for _, b in ipairs(div.content) do
    if b.t == "Header" and (not level or b.level == level) then
      level = b.level
      tabs:insert{title = b.content, body = pandoc.Blocks{}}
    elseif #tabs > 0 then
      tabs[#tabs].body:insert(b)
    end
  end
  tabsets = tabsets + 1
  local out = pandoc.Blocks{}
  for i, tab in ipairs(tabs) do
    local title, body = pandoc.Plain(tab.title), transform(tab.body)
    local id = ("tabset-%d-%d"):format(tabsets, i)
    out:extend(html and join(
      raw(('<input type="radio" name="tabset-%d" id="%s"%s><label for="%s">')
        :format(tabsets, id, i == 1 and " checked" or "", id)),
      title, raw '</label><div class="tab">', body, raw "</div>")
      or join(raw "#tab[", title, raw "][", body, raw "]"))
  end
  return html and join(raw '<div class="tabset">', out, raw "</div>") or out
end

-- Whether Quarto would show the element.  (For Quarto, Typst output is not the format "pdf".)
local function visible(el)
  local a, hidden = el.attributes, el.classes:includes "content-hidden"
  if el.classes:includes "hidden" then return false end
  if not hidden and not el.classes:includes "content-visible" then return true end
  local function format(name) return (html and name:match "^html") or (not html and name == "typst") end
  local function profile(name) return pandoc.List(job.profiles):includes(name) end
  local match = (not a["when-format"] or format(a["when-format"]))
    and not (a["unless-format"] and format(a["unless-format"]))
    and (not a["when-profile"] or profile(a["when-profile"]))
    and not (a["unless-profile"] and profile(a["unless-profile"]))
  if a["when-meta"] or a["unless-meta"] then
    table.insert(report.warnings, doc.file .. ": when-meta and unless-meta are not supported")
  end
  return (not match) == hidden
end

-- Pass 1 --------------------------------------------------------------------------------------------

local function Div(div)
  if not visible(div) then return {}, false end
  local kind = kind_of(div.identifier)
  for _, class in ipairs(div.classes) do
    local name = class:match "^callout%-(%l+)$"
    if name then return callout(div, name), false end
    if class == "panel-tabset" then return tabset(div), false end
  end
  if kind == "fig" or kind == "tbl" or kind == "lst" then return float_div(div, kind), false end
  if has_layout(div.attributes) then
    local code, body = lift_code(div.content)
    return join(code, panel(div.attributes, body)), false
  end
  local content = transform(div.content)
  -- Cell ids and attributes mean nothing to a reader, and Typst has no use for classes.
  if div.classes:find_if(function(c) return c:match "^cell" end) then
    div.attr = pandoc.Attr("", div.classes)
  end
  if not html and div.identifier == "" then return content, false end
  div.content = content
  return div, false
end

local function Header(h)
  if h.classes:includes "unnumbered" or chapter == "" or h.level == 1 then return nil end
  section[h.level] = (section[h.level] or 0) + 1
  for i = h.level + 1, 6 do section[i] = 0 end
  local parts = {chapter}
  for i = 2, h.level do parts[i] = section[i] or 0 end
  local num = table.concat(parts, ".")
  if h.identifier:match "^sec%-" then register(h.identifier, "sec", num) end
  if h.level <= job.number_depth then
    h.content:insert(1, pandoc.Span(pandoc.Str(num), {class = "secno"}))
    h.content:insert(2, pandoc.Str("\u{2003}"))
  end
  return h
end

local function CodeBlock(code)
  if not visible(code) then return {}, false end
  if kind_of(code.identifier) == "lst" then
    local id, caption = code.identifier, markdown(code.attributes["lst-cap"] or "")
    code.attr = pandoc.Attr("", code.classes)
    return float(id, "lst", caption, {code}), false
  end
  local fold = code.attributes["code-fold"] or doc.code_fold
  local summary = code.attributes["code-summary"] or doc.code_summary
  local cell = code.classes:includes "cell-code"
  code.attr = pandoc.Attr(code.identifier, code.classes)
  if not (html and cell) or fold == "false" then return code, false end
  return {raw(('<details class="code-fold"%s><summary>%s</summary>'):format(
    fold == "show" and " open" or "", escape(summary))), code, raw "</details>"}, false
end

-- $$ … $$ {#eq-x}: pandoc reads the label as text after the formula.
local function equations(content)
  local out, i = pandoc.Inlines{}, 1
  while i <= #content do
    local el, j = content[i], i + 1
    if el.t == "Math" and el.mathtype == "DisplayMath" then
      while content[j] and (content[j].t == "Space" or content[j].t == "SoftBreak") do j = j + 1 end
      local id, rest = (content[j] and content[j].text or ""):match "^{#(eq%-[%w_:.-]+)}(.*)$"
      if id then
        local num = number "eq"
        register(id, "eq", num)
        local tag = "(" .. num .. ")"
        if html then
          out:insert(pandoc.Span({el, pandoc.Span(tag, {class = "eqno"})}, {id = id, class = "equation"}))
        else
          out:extend{pandoc.RawInline("typst", "#equation[" .. tag .. "]["), el,
            pandoc.RawInline("typst", "]" .. typst_id(id))}
        end
        if rest ~= "" then out:insert(pandoc.Str(rest)) end
        el, i = nil, j
      end
    end
    if el then out:insert(el) end
    i = i + 1
  end
  return out
end

local function Para(p)  -- also Plain
  local image = #p.content == 1 and p.content[1]
  if image and image.t == "Image" and kind_of(image.identifier) == "fig" then  -- without caption
    local id = image.identifier
    image.identifier = ""
    return float(id, "fig", pandoc.Inlines{}, {pandoc.Plain{image}}), false
  elseif image and image.t == "Image" and p.t == "Para" then  -- a picture without a number
    return join(raw(html and '<div class="picture">' or "#align(center)["),
      transform{pandoc.Plain(image)}, raw(html and "</div>" or "]")), false
  end
  p.content = equations(p.content)
  return p
end

local function Span(span)
  if not visible(span) then return {} end
end

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

-- The file behind an image's source: frozen figures first, then relative to the document.
local function locate(src)
  src = src:gsub("%%20", " ")
  local tries = src:match "^/" and {job.root .. src} or {doc.dir .. "/" .. src, job.root .. "/" .. src}
  local stem, rest = src:match "^([^/]+)_files/(.*)$"
  if doc.frozen and stem == doc.stem then table.insert(tries, 1, doc.frozen .. "/" .. rest) end
  return pandoc.List(tries):find_if(exists)
end

-- Embeds the file into the HTML; for Typst copies it, by its contents' name, next to the document.
local function embed(src)
  local path = locate(src)
  if not path then
    table.insert(report.unresolved, ("image %s in %s"):format(src, doc.file))
    return src
  end
  local mime, bytes = pandoc.mediabag.fetch(path)
  if html then return pandoc.mediabag.make_data_uri(mime, bytes) end
  local name = pandoc.utils.sha1(bytes) .. (path:match "%.%w+$" or "")
  local f = assert(io.open(job.work .. "/" .. name, "wb"))
  f:write(bytes)
  f:close()
  return name
end

local function Image(img)
  local a = img.attributes
  local alt = a["fig-alt"] or a.alt or pandoc.utils.stringify(img.caption)
  if img.src:match "^%a+://" then
    table.insert(report.warnings, ("%s: left out the remote image %s"):format(doc.file, img.src))
    return pandoc.Link(#img.caption > 0 and img.caption or img.src, img.src)
  end
  local src = img.src:match "^data:" and img.src or embed(img.src)
  if html then
    return pandoc.Image(img.caption, src, "", {id = img.identifier, width = a.width,
      height = a.height, alt = alt})
  end
  local args = ("%q, alt: %s"):format(src, pandoc.json.encode(alt))  -- pandoc would drop the alt
  for _, key in ipairs{"width", "height"} do
    local n, unit = (a[key] or ""):match "^([%d.]+)(%D*)$"
    if n then  -- a pixel is 3/4 of a point
      local px = unit == "" or unit == "px"
      args = args .. (", %s: %s%s"):format(key, px and tonumber(n) * .75 or n, px and "pt" or unit)
    end
  end
  return pandoc.RawInline("typst", ("#box(image(%s))"):format(args))
end

local function RawBlock(el)  -- also RawInline
  if html and el.format == "html" then
    el.text = el.text:gsub('(<img[^>]-src=")([^":]+)(")', function(a, src, b) return a .. embed(src) .. b end)
    return el
  elseif not html and el.t == "RawBlock" and el.format == "html" and el.text:match "<table" then
    return transform(pandoc.read(el.text:gsub("<style.->.-</style>", ""), "html").blocks), false
  end
end

local pass1 = {traverse = "topdown", Div = Div, Header = Header, CodeBlock = CodeBlock, Para = Para,
  Plain = Para, Span = Span, Image = Image, Table = Table, Figure = Figure, RawBlock = RawBlock,
  RawInline = RawBlock}
function transform(blocks) return pandoc.Blocks(blocks):walk(pass1) end

-- Identifiers that several documents use (such as a heading "Summary") become unique.
local function unique_ids(blocks, renamed)
  local function unique(el)
    local id = el.identifier
    if id == "" or id == "refs" or kind_of(id) then return nil end
    if used[id] then
      renamed[id] = id .. "-" .. doc.index
      el.identifier = renamed[id]
    end
    used[el.identifier] = true
    return el
  end
  local filter = {}
  for _, t in ipairs{"Header", "Div", "Span", "Code", "CodeBlock", "Table", "Figure", "Image", "Link"} do
    filter[t] = unique
  end
  return blocks:walk(filter)
end

local letters = {chapter = 0, appendix = 0}
local function read_document(d, index)
  doc, counts, section, parent, chapter = d, {}, {}, nil, ""
  doc.index, doc.renamed = index, {}
  local blocks = unique_ids(pandoc.read(d.markdown, "markdown").blocks, doc.renamed)
  local heading
  local titled = (d.title or "") ~= ""
  if titled then  -- the title of the front matter, which may carry attributes
    heading = pandoc.read("# " .. d.title, "markdown").blocks[1]
  else
    local _, at = blocks:find_if(function(b) return b.t == "Header" and b.level == 1 end)
    if at then heading = blocks:remove(at) end
  end
  local part = d.kind == "part"
  if not part and not (heading and heading.classes:includes "unnumbered") then
    letters[d.kind] = letters[d.kind] + 1
    local n = letters[d.kind]
    chapter = d.kind == "appendix" and string.char(64 + n) or tostring(n)
  end
  if heading then
    local id = heading.identifier
    if id == "" or (titled and used[id]) then id = "chapter-" .. index end
    used[id], doc.anchor, heading.identifier = true, id, id
    if chapter ~= "" then
      if id:match "^sec%-" then register(id, "sec", chapter) refs[id].top = d.kind end
      heading.content:insert(1, pandoc.Span(pandoc.Str(chapter), {class = "secno"}))
      heading.content:insert(2, pandoc.Str("\u{2003}"))
    elseif part then
      heading.content = {pandoc.Span(heading.content, {class = "part"})}
    end
  end
  local body = transform(blocks)
  if part and not html then heading = join(raw "#part[", heading, raw "]") end
  doc.blocks = join(heading or {}, body)
end

-- Pass 2 --------------------------------------------------------------------------------------------

local function prefix_of(ref)
  return ref.top and (ref.top == "appendix" and "Appendix" or "Chapter") or LABEL[ref.kind]
end

local function reference(citation)
  local id = citation.id:gsub("^%u", string.lower)
  local ref = refs[id]
  if not ref then
    table.insert(report.unresolved, ("@%s in %s"):format(citation.id, doc.file))
    return pandoc.Inlines{pandoc.Str("?" .. citation.id)}
  end
  local prefix = prefix_of(ref)
  local num = (ref.kind == "eq" and not html) and "(" .. ref.number .. ")" or ref.number
  local text = pandoc.Inlines{}
  if #citation.prefix > 0 then
    text:extend(citation.prefix)
    text:insert(pandoc.Str(NBSP .. num))
  else
    text:insert(pandoc.Str(citation.mode == "SuppressAuthor" and num or prefix .. NBSP .. num))
  end
  local out = pandoc.Inlines{pandoc.Link(text, "#" .. id, "", {class = "xref"})}
  out:extend(citation.suffix)
  return out
end

local function Cite(cite)
  if not kind_of(cite.citations[1].id:gsub("^%u", string.lower)) then return nil end
  local out = pandoc.Inlines{}
  for i, citation in ipairs(cite.citations) do
    if i > 1 then out:extend{pandoc.Str(","), pandoc.Space()} end
    out:extend(reference(citation))
  end
  return out
end

-- Links between chapters become links within the one document.
local function Link(link)
  local path, id = link.target:match "^([^#?]*)#?(.*)$"
  if path:match "^%a[%w+.-]*:" or path:match "^//" then return nil end
  local target = doc
  if path:match "%.qmd$" or path:match "%.html$" then
    local file = path:match "^/" and path:sub(2)
      or pandoc.path.normalize(pandoc.path.join{pandoc.path.directory(doc.file), path})
    while file:match "[^/]+/%.%./" do file = file:gsub("[^/]+/%.%./", "", 1) end
    target = pandoc.List(job.docs):find_if(function(d)
      return d.file:gsub("%.qmd$", "") == file:gsub("^%./", ""):gsub("%.%w+$", "")
    end)
    if not target then return nil end
  elseif path ~= "" then
    return nil
  end
  id = id ~= "" and (target.renamed[id] or id) or target.anchor or ""
  if not (used[id] or refs[id]) then
    table.insert(report.warnings, ("%s: the link to %s leads nowhere"):format(doc.file, link.target))
    return link.content
  end
  link.target = "#" .. id
  return link
end

function Pandoc(all)
  local f = assert(io.open(pandoc.utils.stringify(all.meta.job), "rb"))
  job = pandoc.json.decode(f:read "a", false)
  f:close()
  html = job.format == "html"
  for i, d in ipairs(job.docs) do read_document(d, i) end
  local blocks, has_refs = pandoc.Blocks{}, false
  for _, d in ipairs(job.docs) do
    doc = d
    local walked = d.blocks:walk{Link = Link}:walk{Cite = Cite}
    -- A page of one document alone: the others count for the numbers only.
    if not job.only or job.only == d.file then blocks:extend(walked) end
  end
  for id, ref in pairs(refs) do report.names[id] = prefix_of(ref) .. NBSP .. ref.number end
  blocks:walk{Div = function(div) has_refs = has_refs or div.identifier == "refs" end}
  if job.bibliography and not has_refs then  -- a place for --citeproc to put the references
    blocks:extend{pandoc.Header(1, "References", {id = "references", class = "unnumbered"}),
      pandoc.Div({}, {id = "refs"})}
  end
  f = assert(io.open(job.work .. "/report.json", "wb"))
  f:write(pandoc.json.encode(report))
  f:close()
  if job.nocite ~= "" then all.meta.nocite = pandoc.Inlines(markdown(job.nocite)) end
  all.meta["link-citations"] = true
  return pandoc.Pandoc(blocks, all.meta)
end
