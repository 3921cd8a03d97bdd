"""Index movement and fixed linear algebra taken out of the differentiated part.

The pullback graph is cut into pieces ``J = G_1 G_2 ... G_K``. Each ``G`` is a fixed linear map of a
few entries that vary: its leading and trailing calls move, add or scale elements by numbers that do
not depend on the arguments, and only what is left between them is differentiated.
"""
