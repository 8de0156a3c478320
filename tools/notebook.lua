-- notebook.lua: makes a chapter's text readable in a notebook, which knows nothing of Quarto.
--
-- tools/notebooks.py runs pandoc with this filter.  Headings, captions and equations get their
-- numbers, references become words ("Figure 2.3"), callouts become quotations, and what is meant
-- for the web alone is left out, as in the PDF.  Citations are left for --citeproc.

local names  -- label -> "Figure 2.3"
local cited = false

local function bold(text) return pandoc.Strong(pandoc.Str(text)) end
local function kind_of(id) return id:match("^(%l+)%-") end
local function is_mark(block)  -- of a cell
  return block.t == "Para" and pandoc.utils.stringify(block):match "^NOTEBOOKCELL%d+$"
end
local function captioned(id, blocks)  -- the last paragraph is the caption
  local text, last = pandoc.Inlines{bold(names[id] .. "."), pandoc.Space()}, blocks[#blocks]
  if last and (last.t == "Para" or last.t == "Plain") and not is_mark(last) then
    blocks:remove(#blocks)
    text:extend(last.content)
  end
  blocks:insert(pandoc.Para(text))
  return blocks
end

local function visible(el)
  local a, hidden = el.attributes, el.classes:includes "content-hidden"
  if not hidden and not el.classes:includes "content-visible" then return true end
  local match = (not a["when-format"] or a["when-format"] == "typst")
    and a["unless-format"] ~= "typst"
  return match ~= hidden
end

local function Div(div)
  if not visible(div) then return {} end
  for _, class in ipairs(div.classes) do
    local kind = class:match "^callout%-(%l+)$"
    if kind then
      local body, title = div.content, div.attributes.title or kind:gsub("^%l", string.upper)
      if not div.attributes.title and body[1] and body[1].t == "Header" then
        title = pandoc.utils.stringify(body:remove(1))
      end
      local words = pandoc.utils.blocks_to_inlines(pandoc.read(title, "markdown").blocks)
      body:insert(1, pandoc.Para{pandoc.Strong(words)})
      return body:find_if(is_mark) and body or pandoc.BlockQuote(body)
    end
  end
  local kind = kind_of(div.identifier)
  if (kind == "fig" or kind == "tbl" or kind == "lst") and names[div.identifier] then
    return captioned(div.identifier, div.content)
  end
  return div.content
end

local function Table(tbl)
  if tbl.identifier == "" or not names[tbl.identifier] then return nil end
  local caption = pandoc.utils.blocks_to_inlines(tbl.caption.long)
  local id = tbl.identifier
  tbl.attr, tbl.caption = pandoc.Attr(), {long = {}}
  return captioned(id, pandoc.Blocks{tbl, pandoc.Para(caption)})
end

local function Figure(fig)
  local blocks = pandoc.Blocks(fig.content)
  blocks:insert(pandoc.Para(pandoc.utils.blocks_to_inlines(fig.caption.long)))
  if not names[fig.identifier] then return blocks end
  return captioned(fig.identifier, blocks)
end

local function Header(h)
  local name = names[h.identifier]
  if name then
    h.content:insert(1, pandoc.Str(name:match "\u{a0}(.+)$"))
    h.content:insert(2, pandoc.Space())
  end
  h.attr = pandoc.Attr()
  return h
end

-- $$ … $$ {#eq-x}: pandoc reads the label as text after the formula.
local function Inlines(inlines)
  local out = pandoc.Inlines{}
  for _, el in ipairs(inlines) do
    local id = el.t == "Str" and el.text:match "^{#(eq%-[%w_:.-]+)}$"
    if id and names[id] then
      while out[#out].t ~= "Math" do out:remove(#out) end
      out[#out].text = out[#out].text:gsub("%s+$", "")
        .. ("\n\\tag{%s}\n"):format(names[id]:match "\u{a0}(.+)$")
    else
      out:insert(el)
    end
  end
  return out
end

local function Cite(cite)
  local words = pandoc.Inlines{}
  for i, citation in ipairs(cite.citations) do
    local id = citation.id:gsub("^%u", string.lower)
    local kind = kind_of(id)
    if not names[id] then
      if kind == "fig" or kind == "tbl" or kind == "sec" or kind == "eq" or kind == "lst" then
        error("the reference @" .. id .. " leads nowhere")
      end
      cited = true
      return nil
    end
    if i > 1 then words:extend{pandoc.Str(","), pandoc.Space()} end
    if #citation.prefix > 0 then words:extend(citation.prefix) words:insert(pandoc.Space()) end
    local short = citation.mode == "SuppressAuthor" or #citation.prefix > 0
    words:insert(pandoc.Str(short and names[id]:match "\u{a0}(.+)$" or names[id]))
    words:extend(citation.suffix)
  end
  return words
end

local function Image(image)  -- a notebook is one file
  if not image.src:match "^data:" then
    image.src = pandoc.mediabag.make_data_uri(pandoc.mediabag.fetch(image.src))
  end
  image.attr = pandoc.Attr()
  return image
end

function Pandoc(doc)
  local file = assert(io.open(pandoc.utils.stringify(doc.meta.names), "rb"))
  names = pandoc.json.decode(file:read "a", false)
  file:close()
  doc = doc:walk{Inlines = Inlines}:walk{traverse = "topdown", Div = function(div)
    if not visible(div) then return {}, false end
  end}
  doc = doc:walk{Div = Div, Table = Table, Figure = Figure, Header = Header, Cite = Cite,
    Image = Image, Span = function(span) return visible(span) and span.content or {} end,
    RawBlock = function() return {} end, RawInline = function() return {} end}
  if cited then
    doc.blocks:extend{pandoc.Para(pandoc.Str "NOTEBOOKREFERENCES"),
      pandoc.Header(2, pandoc.Str "References"), pandoc.Div({}, {id = "refs"})}
  end
  return doc
end
