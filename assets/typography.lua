-- Typography that both renderers and both formats share: numbers keep to their units and signs,
-- and a digit in quotation marks keeps the opening one before an s: ‘1’s.

local NBSP = "\u{a0}"
local UNITS = {}
for unit in ("% s ms min h px pt MB GB ° points"):gmatch "%S+" do UNITS[unit] = true end
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
      local digit = after.t == "Str" and right:match "^[-−+]?%d"
      if (number and (UNITS[(right:gsub("[.,;:)]+$", ""))] or SIGNS[right])) or (SIGNS[left] and digit)
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
