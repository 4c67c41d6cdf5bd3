"""Common words of training captions and of the folders that they lie in, which are no trigger."""

from __future__ import annotations

_WORDS = """
1boy 1girl 1other 2boys 2girls 3d 4k 8k a above absurdres adult an and angry animal anime arm armor arms art artstyle artwork as at back
background bag bangs bare beach beard beautiful behind below belt best big bikini bird black blond blonde blue blurred blurry blush body
boots bow boy boys braid braids breast breasts bright brown building by cap cartoon cat character chest child city class cleavage close
closed closeup clothes clothing cloud clouds coat collar collarbone collared colorful comic concept concepts cowboy creature cute dark
data dataset datasets day default detail detailed details digital dog down drawing dress ear earrings ears explicit expression
expressionless eye eyes face feet female field finger fingers floor flower flowers folder foot for forest freckles from front full
general girl girls glasses gloves gold golden grass gray grayscale green grey greyscale guy hair half hand hands happy hat hd he head
her high highres hips his holding hood hoodie house human illustration image images img imgs in indoors inside instance is it its jacket
jeans jewelry kid lady landscape large leg legs light lineart lips little long looking lora low lying male man manga masterpiece media
medium men monochrome moon mountain mouth multiple mustache my nature navel neck necklace necktie new night no nose nude object of on
open or orange out outdoors outside over painting pale pants people person photo photograph photography pics picture pictures pink plain
ponytail portrait purple quality questionable rain rating realistic red reg render resolution ribbon room running sad safe scenery score
sea sensitive sepia serious she shirt shoes short shorts shot shoulder shoulders side silver simple sitting sketch skin skirt sky
sleeves small smile smiling snow socks solo source standing stomach street style subject suit sun sunlight sunset sweater swimsuit sword
tall teeth test the their thighhighs thighs thing tie to token tokens tongue traditional train training tree trees trigger twintails
under uniform untitled up upper vector version very view viewer waist walking wall water weapon wearing white with without woman women
worst yellow
"""
COMMON_WORDS = frozenset(_WORDS.split())
"""Words of tags and captions in general, in lower case. Tags of these words alone invoke what every base model draws."""
