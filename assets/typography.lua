-- Typography that both renderers and both formats share: numbers keep to their units, signs and
-- intervals, and a digit in quotation marks keeps the opening one before an s: ‘1’s.

local NBSP, THIN = "\u{a0}", "\u{202f}" -- THIN is what `values.UNIT` prints
local function set(words)
  local found = {}
  for word in words:gmatch "%S+" do found[word] = true end
  return found
end
local UNITS = set "% s ms min h px pt MB GB °"
local COUNTED = set "points epochs seeds trainings images pixels"
local NUMBERED = set "seed case cases Case minute digit class label epoch"
local SIGNS = {["±"] = true, ["×"] = true, ["="] = true, ["<"] = true, [">"] = true, ["≈"] = true,
  ["≤"] = true, ["≥"] = true}

function Inlines(list)
  for i, el in ipairs(list) do
    if el.t == "Str" then
      el.text = el.text:gsub("^(%p*)’(%d)’s", "%1‘%2’s")
      -- Written as ', which pandoc does, Typst would take the closing one for a prime: 1′s.
      local open, rest = el.text:match "^(%p*‘%d)’(s.*)$"
      if open and FORMAT:match "typst" then
        list[i] = pandoc.Span {pandoc.Str(open), pandoc.RawInline("typst", "’"), pandoc.Str(rest)}
      end
    elseif el.t == "Space" or el.t == "SoftBreak" then
      local before, after = list[i - 1] or {}, list[i + 1] or {}
      local left, right = before.text or "", after.text or ""
      local number = before.t == "Str" and (left:match "%d$" or left:match "%d%%$")
      local digit = after.t == "Str" and right:gsub("^−", ""):match "^[-+]?%d"
      local word = right:gsub("[.,;:)]+$", "")
      local ends = (list[i - 3] or {}).text or "" -- before "to", in an interval
      if number and UNITS[word] then list[i] = pandoc.Str(THIN)
      elseif number and (COUNTED[word] or SIGNS[right] or right == "to")
        or digit and (SIGNS[left] or NUMBERED[left] or (left == "to" and ends:match "%d%%?$"))
      then list[i] = pandoc.Str(NBSP) end
    end
  end
  return list
end

-- Quarto's tables scroll sideways on a phone, so the keyboard has to reach them.
function Div(el)
  if not (quarto and FORMAT:match "html" and el.classes:includes "cell-output-display") then return end
  local tables = false
  el:walk {Table = function() tables = true end}
  if tables then el.attributes.tabindex = "0" return el end
end
