-- book.lua: turns the documents of one Quarto book into one pandoc document.
--
-- tools/offline writes a job file (JSON) and runs pandoc on empty input with this filter. Pass 1
-- reads every document, numbers chapters, sections, figures, tables and equations as Quarto does,
-- and turns cells, figures, tables and callouts into blocks and raw markup of the target. Pass 2,
-- when every number is known, resolves references and links. Citations are left for --citeproc.
-- In Typst the numbers are Typst's own; those counted here are for HTML and for the report.

local job, html                 -- the job file; whether the target is HTML (else Typst)
local refs, used = {}, {}       -- id -> {kind, number, name}; every heading's id so far
local report = {names = {}, problems = {}}  -- names: id -> "Figure 2.1"
local doc, chapter, counts, section         -- state of the document that pass 1 is in
local transform                 -- pass 1 on a list of blocks (defined below)

local NAME = {fig = "Figure", tbl = "Table", eq = "Equation", sec = "Section"}
local CALLOUTS = {note = true, tip = true, warning = true, important = true, caution = true}
local KNOWN = {}                -- classes of a Div that need nothing, or are treated below
for class in ([[cell cell-output cell-output-display cell-output-markdown cell-output-stdout
    cell-output-stderr content-visible refs references csl-bib-body hanging-indent
    unnumbered hidden]]):gmatch "%S+" do KNOWN[class] = true end
local NBSP = "\u{a0}"

local function raw(text) return pandoc.RawBlock(html and "html" or "typst", text) end
local function escape(s) return (s:gsub("[&<>\"]",
  {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"})) end
local function markdown(s) return pandoc.utils.blocks_to_inlines(pandoc.read(s, "markdown").blocks) end
local function quote(s) return pandoc.json.encode(s) end  -- Typst's strings look like JSON's
local function problem(text, ...)
  local line = doc.file .. ": " .. text:format(...)
  if job.only and job.only ~= doc.file then return end  -- of the others only the numbers count
  if not pandoc.List(report.problems):includes(line) then table.insert(report.problems, line) end
end
local function unknown(what)
  problem("%s is not what the renderer without Quarto knows; do without it or render with Quarto",
    what)
end
local function join(...)  -- blocks and lists of blocks -> one list
  local all = pandoc.Blocks{}
  for _, part in ipairs{...} do
    if pandoc.utils.type(part) == "Block" then all:insert(part) else all:extend(part) end
  end
  return all
end
local function kind_of(id) return NAME[id:match "^(%l+)%-" or ""] and id:match "^(%l+)" end
local function register(id, kind, number, name)
  if refs[id] then problem("#%s is defined twice", id) end
  refs[id] = {kind = kind, number = number, name = name or NAME[kind]}
end
local function count(id, kind)
  counts[kind] = (counts[kind] or 0) + 1
  register(id, kind, (chapter ~= "" and chapter .. "." or "") .. counts[kind])
  return refs[id].number
end

-- Figures and tables ------------------------------------------------------------------------------

local function float(id, kind, caption, body)
  local name = NAME[kind]
  local number = count(id, kind)
  if #caption == 0 then problem("%s has no caption", id) end
  if kind == "fig" then  -- what is shown without words of its own takes the caption's
    body = body:walk{Image = function(image)
      image.attributes["fig-alt"] = image.attributes["fig-alt"] or pandoc.utils.stringify(caption)
      return image
    end}
  end
  doc.inside = true
  body = transform(body)
  doc.inside = false
  if not html then
    return join(raw(('#float("%s", "%s", ['):format(kind, name)), pandoc.Plain(caption), raw "], [",
      body, raw(("]) <%s>"):format(id)))
  end
  local label = pandoc.Inlines{pandoc.Strong{pandoc.Str(name .. NBSP .. number .. ".")}, pandoc.Space()}
  label:extend(caption)
  local words = join(raw "<figcaption>", pandoc.Plain(label), raw "</figcaption>")
  local open = raw(('<figure id="%s" class="%s">'):format(escape(id), kind))
  if kind == "fig" then return join(open, raw '<div class="frame">', body, raw "</div>", words,
    raw "</figure>") end
  return join(open, words, raw(('<div class="scroll" aria-label="%s %s">'):format(name, number)),
    body, raw "</div></figure>")
end

-- Column widths as wide as the contents want, unless they are given: tbl-colwidths="[70,30]".
local function set_widths(tbl, given)
  local widths, total = pandoc.List{}, 0
  for width in (given or ""):gmatch "[%d.]+" do
    widths:insert(tonumber(width))
    total = total + tonumber(width)
  end
  if given and #widths ~= #tbl.colspecs then problem("tbl-colwidths of another number of columns") end
  for i, spec in ipairs(tbl.colspecs) do tbl.colspecs[i] = {spec[1], given and widths[i] / total} end
  return tbl
end

local function Table(tbl)
  local id = tbl.identifier
  tbl = set_widths(tbl, tbl.attributes["tbl-colwidths"])
  if kind_of(id) ~= "tbl" then
    if doc.inside or not html then return tbl end
    return {raw '<div class="scroll">', tbl, raw "</div>"}, false
  end
  local caption = pandoc.utils.blocks_to_inlines(tbl.caption.long)
  tbl.attr, tbl.caption = pandoc.Attr(), {long = {}}
  return float(id, "tbl", caption, pandoc.Blocks{tbl}), false
end

local function float_div(div, kind)
  local caption = div.attributes[kind .. "-cap"] and markdown(div.attributes[kind .. "-cap"])
  local code, body = pandoc.Blocks{}, div.content:walk{CodeBlock = function(c)
    return c.classes:includes "cell-code" and {} or nil
  end}
  div.content:walk{CodeBlock = function(c)  -- a cell's code stays outside
    if c.classes:includes "cell-code" then code:insert(c) end
  end}
  local last = body[#body]
  if not caption and last and last.t == "Para" then
    caption = last.content
    body:remove(#body)
  end
  body = body:walk{Table = function(tbl)
    tbl.attributes["tbl-colwidths"] = div.attributes["tbl-colwidths"]
    if not caption and kind == "tbl" then
      caption = pandoc.utils.blocks_to_inlines(tbl.caption.long)
      tbl.caption = {long = {}}
    end
    return tbl
  end}
  return join(transform(code), float(div.identifier, kind, caption or pandoc.Inlines{}, body))
end

-- Cells, callouts, conditional content ------------------------------------------------------------

local function callout(div, kind)
  local title, body = pandoc.Inlines(kind:gsub("^%l", string.upper)), div.content
  if div.attributes.title then
    title = markdown(div.attributes.title)
  elseif body[1] and body[1].t == "Header" then
    title = body:remove(1).content
  end
  title, body = pandoc.Plain(title), transform(body)
  if not html then return join(raw(('#callout("%s", ['):format(kind)), title, raw "], [", body, raw "])") end
  local open = div.attributes.collapse
  if open then
    return join(raw(('<details class="callout callout-%s"%s><summary>'):format(kind,
      open == "false" and " open" or "")), title, raw "</summary>", body, raw "</details>")
  end
  return join(raw(('<div class="callout callout-%s"><p class="callout-title">'):format(kind)), title,
    raw "</p>", body, raw "</div>")
end

-- Whether Quarto would show the element.  (For Quarto, Typst output is not the format "pdf".)
local function visible(el)
  if el.classes:includes "content-hidden" then unknown "content-hidden" end
  if not el.classes:includes "content-visible" then return true end
  for key in pairs(el.attributes) do
    if key ~= "when-format" then unknown("the attribute " .. key) end
  end
  return (el.attributes["when-format"] or ""):gsub("^html.*", "html") == job.format
end

local function Div(div)
  if not visible(div) then return {}, false end
  for _, class in ipairs(div.classes) do
    local kind = class:match "^callout%-(%l+)$"
    if CALLOUTS[kind] then return callout(div, kind), false end
    if not KNOWN[class] then unknown("a block of the class ." .. class) end
  end
  for key in pairs(div.attributes) do
    if key:match "^layout" or key:match "subcap$" then unknown("the attribute " .. key) end
  end
  local kind = kind_of(div.identifier)
  if kind == "fig" or kind == "tbl" then return float_div(div, kind), false end
  if div.identifier == "refs" then return nil end
  local content = transform(div.content)
  if not html then return content, false end
  div.attr, div.content = pandoc.Attr("", div.classes), content  -- cells' ids and counts say nothing
  return div, false
end

local function Header(h)
  local id = h.identifier
  if used[id] then h.identifier = id .. "-" .. doc.index end
  used[h.identifier] = true
  local plain = h.classes:includes "unnumbered" or chapter == ""
  local parts = {chapter}
  if h.level > 1 and not plain then
    section[h.level] = (section[h.level] or 0) + 1
    for i = h.level + 1, 6 do section[i] = 0 end
    for i = 2, h.level do parts[i] = section[i] or 0 end
  end
  if not plain then
    local number = table.concat(parts, ".")
    if kind_of(id) == "sec" then
      local top = doc.kind == "appendix" and "Appendix" or "Chapter"
      register(id, "sec", number, h.level == 1 and top or "Section")
    end
    if html then
      h.content:insert(1, pandoc.Span(pandoc.Str(number), {class = "secno"}))
      h.content:insert(2, pandoc.Str("\u{2002}"))
    end
  elseif chapter == "" then
    h.classes = {"unnumbered"}
  end
  return h
end

local function CodeBlock(code)
  local fold = code.attributes["code-fold"] or doc.code_fold
  local cell = code.classes:includes "cell-code"
  code.attr = pandoc.Attr("", code.classes)
  if not (html and cell) or fold == "false" then return code end
  return {raw(('<details class="code-fold"%s><summary>%s</summary>'):format(
    fold == "show" and " open" or "", escape(code.attributes["code-summary"] or doc.code_summary))),
    code, raw "</details>"}, false
end

-- Formulas: in Typst with their source as alternative text; numbered where they have a label,
-- $$ … $$ {#eq-x}, which pandoc reads as text after the formula.
local function formula(math, id)
  if html then
    return id and pandoc.Span({math, pandoc.Span("(" .. refs[id].number .. ")", {class = "eqno"})},
      {id = id, class = "equation"}) or math
  end
  local text = pandoc.write(pandoc.Pandoc{pandoc.Plain{math}}, "typst"):gsub("%s+$", "")
  return pandoc.RawInline("typst", ("#[#set math.equation(alt: %s%s);%s%s]"):format(
    quote((math.text:gsub("^%s+", ""):gsub("%s+$", ""))), id and "" or ", numbering: none", text, id and " <" .. id .. ">" or ""))
end

local function formulas(content)
  local out, i = pandoc.Inlines{}, 1
  while i <= #content do
    local el, j, id = content[i], i + 1, nil
    if el.t == "Math" and el.mathtype == "DisplayMath" then
      while content[j] and (content[j].t == "Space" or content[j].t == "SoftBreak") do j = j + 1 end
      id = (content[j] and content[j].text or ""):match "^{#(eq%-[%w_:.-]+)}$"
      if id then
        count(id, "eq")
        i = j
      end
    end
    out:insert(el.t == "Math" and formula(el, id) or el)
    i = i + 1
  end
  return out
end

local function Para(p)  -- also Plain
  p.content = formulas(p.content)
  return p
end

local function Figure(fig)
  local id = fig.identifier
  if kind_of(id) ~= "fig" then return nil end
  return float(id, "fig", pandoc.utils.blocks_to_inlines(fig.caption.long), fig.content), false
end

-- Images ------------------------------------------------------------------------------------------

-- The file behind an image's source: frozen figures first, then relative to the document.
local function locate(src)
  src = src:gsub("%%20", " ")
  local tries = src:match "^/" and {job.root .. src} or {doc.dir .. "/" .. src, job.root .. "/" .. src}
  local stem, rest = src:match "^([^/]+)_files/(.*)$"
  if doc.frozen and stem == doc.stem then table.insert(tries, 1, doc.frozen .. "/" .. rest) end
  for _, path in ipairs(tries) do
    local file = io.open(path, "rb")
    if file then
      file:close()
      return path
    end
  end
  problem("there is no image %s", src)
end

-- Embedded into HTML; for Typst copied, by its contents' name, next to the document.
local function Image(image)
  local a = image.attributes
  if image.src:match "^%a+://" then problem("the image %s is not on this machine", image.src) end
  local path = locate(image.src)
  if not path then return image end
  local alt = a["fig-alt"] or a.alt or pandoc.utils.stringify(image.caption)
  local mime, bytes = pandoc.mediabag.fetch(path)
  if html then
    return pandoc.Image(image.caption, pandoc.mediabag.make_data_uri(mime, bytes), "",
      {width = a.width, height = a.height, alt = alt})
  end
  local name = pandoc.utils.sha1(bytes) .. (path:match "%.%w+$" or "")
  local file = assert(io.open(job.work .. "/" .. name, "wb"))
  file:write(bytes)
  file:close()
  local width = (a.width or ""):match "^[%d.]+%%$"
  return pandoc.RawInline("typst", ("#box(image(%s, alt: %s%s))"):format(quote(name), quote(alt),
    width and ", width: " .. width or ""))
end

local function raw_block(el) return el.format == job.format and el or {} end

local pass1 = {traverse = "topdown", Div = Div, Header = Header, CodeBlock = CodeBlock, Para = Para,
  Plain = Para, Image = Image, Table = Table, Figure = Figure, RawBlock = raw_block,
  RawInline = raw_block, Span = function(span) return not visible(span) and {} or nil end}
function transform(blocks) return pandoc.Blocks(blocks):walk(pass1) end

local letters = {chapter = 0, appendix = 0}
local function read_document(d, index)
  doc, counts, section, chapter = d, {}, {}, ""
  doc.index = index
  local blocks = pandoc.read(d.markdown, "markdown").blocks
  local first = blocks:find_if(function(b) return b.t == "Header" end)
  if not first or first.level ~= 1 then
    problem "does not begin with its title, a heading of the first level"
  elseif not first.classes:includes "unnumbered" then
    letters[d.kind] = letters[d.kind] + 1
    chapter = d.kind == "appendix" and string.char(64 + letters.appendix) or tostring(letters.chapter)
  end
  doc.blocks = transform(blocks)
  if d.kind == "appendix" and letters.appendix == 1 and not html then
    doc.blocks:insert(1, raw '#show: appendices.with("Appendices")')
  end
end

-- Pass 2 ------------------------------------------------------------------------------------------

local function reference(citation)
  local id = citation.id:gsub("^%u", string.lower)
  local ref = refs[id]
  if not ref then
    problem("@%s refers to nothing", citation.id)
    return pandoc.Inlines(citation.id)
  end
  local name = ref.name
  if #citation.prefix > 0 then name = pandoc.utils.stringify(citation.prefix) end
  if citation.mode == "SuppressAuthor" then name = nil end
  local out = pandoc.Inlines{}
  if html then
    local text = (name and name .. NBSP or "") .. ref.number
    out:insert(pandoc.Link(text, "#" .. id, "", {class = "xref"}))
  else
    out:insert(pandoc.RawInline("typst", ("#ref(<%s>, supplement: %s)"):format(id,
      name and "[" .. name .. "]" or "none")))
  end
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

-- Links stay where they lead to: the web, a label of this book, a file that lies beside it.
local function Link(link)
  local path, id = link.target:match "^([^#?]*)#?(.*)$"
  if path:match "^%a[%w+.-]*:" then return nil end
  if path == "" then
    if not (used[id] or refs[id]) then problem("the link to #%s leads nowhere", id) end
    return nil
  end
  if path:match "%.qmd$" then problem("write @sec-… in the place of a link to %s", path) end
  path = pandoc.path.join{pandoc.path.directory(doc.file), path}
  while path:match "[^/]+/%.%./" do path = path:gsub("[^/]+/%.%./", "", 1) end
  if not html then return link.content end
  link.target = path:gsub("^%./", "")
  return link
end

function Pandoc(all)
  local file = assert(io.open(pandoc.utils.stringify(all.meta.job), "rb"))
  job = pandoc.json.decode(file:read "a", false)
  file:close()
  html = job.format == "html"
  for i, d in ipairs(job.docs) do read_document(d, i) end
  local blocks = pandoc.Blocks{}
  for _, d in ipairs(job.docs) do
    doc = d
    local walked = d.blocks:walk{Link = Link}:walk{Cite = Cite}
    -- A page of one document alone: the others count for the numbers only.
    if not job.only or job.only == d.file then blocks:extend(walked) end
  end
  for id, ref in pairs(refs) do report.names[id] = ref.name .. NBSP .. ref.number end
  file = assert(io.open(job.work .. "/report.json", "wb"))
  file:write(pandoc.json.encode(report))
  file:close()
  all.meta["link-citations"] = true
  return pandoc.Pandoc(blocks, all.meta)
end
