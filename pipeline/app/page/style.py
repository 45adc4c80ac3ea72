"""The style sheet of the demo page."""

CSS = """
.cir-message { border-left: 4px solid #d9481f; background: color-mix(in srgb, #d9481f 12%, transparent);
  padding: .6rem .9rem; border-radius: 6px; overflow-wrap: anywhere; }
.cir-quiet { opacity: .7; font-size: .85rem; margin: 0; }
.cir-query { font-size: 1.1rem; overflow-wrap: anywhere; margin: 0; }
.cir-query span { opacity: .7; }
.cir-explanation blockquote, .cir-explanation td + td { overflow-wrap: anywhere; }
.cir-explanation table, .cir-explanation tr, .cir-explanation td { border: 0 !important; vertical-align: top; }
.cir-explanation td { padding: .15rem .6rem .15rem 0 !important; }
#reference-note { min-height: 0; }
.cir-grid, .cir-grid .grid-wrap { min-height: 0 !important; height: auto !important; }
.cir-grid .grid-container { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) !important;
  height: auto !important; }
.cir-grid .caption-label { font-size: .7rem; left: 0; right: 0; bottom: 0; max-width: none; margin: 0;
  padding: 0 .3rem; border-radius: 0; opacity: .9; text-align: center; }
.cir-grid:not(#suggestions) img { padding-bottom: 1.2rem; box-sizing: border-box; }
#suggestions { max-height: 300px; overflow-y: auto; }
#suggestions .caption-label { display: none; }
#suggestions .grid-container { grid-template-columns: repeat(auto-fill, minmax(3.2rem, 1fr)) !important; }
footer { display: none !important; }
"""
