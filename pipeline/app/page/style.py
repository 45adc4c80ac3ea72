"""The style sheet of the demo page."""

CSS = """
.cir-message { border-left: 4px solid #d9481f; background: color-mix(in srgb, #d9481f 12%, transparent);
  padding: .6rem .9rem; border-radius: 6px; overflow-wrap: anywhere; }
.cir-quiet { opacity: .7; font-size: .85rem; margin: 0; }
.cir-whole { white-space: nowrap; }
.cir-query { display: flex; align-items: center; gap: .7rem; font-size: 1.1rem; overflow-wrap: anywhere; margin: 0; }
.cir-query img { width: 3rem; height: 3rem; object-fit: contain; flex: none; }
.cir-query span span { opacity: .7; }
.cir-query a { font-size: .85rem; margin-left: .4rem; }
.cir-explanation blockquote, .cir-explanation td + td { overflow-wrap: anywhere; }
.cir-explanation table, .cir-explanation tr, .cir-explanation td { border: 0 !important; vertical-align: top; }
.cir-explanation td { padding: .15rem .6rem .15rem 0 !important; }
.gradio-container { overflow: visible !important; }
#bar { position: sticky; top: 0; z-index: 60; flex-wrap: nowrap; align-items: stretch; gap: .8rem; padding: .5rem 0;
  background: var(--body-background-fill); border-bottom: 1px solid var(--border-color-primary); }
#bar-reference { flex: none !important; width: 140px; }
#bar-buttons button { max-width: 12rem; padding-inline: .5rem; }
#bar-words { gap: .4rem; justify-content: space-between; }
#bar-buttons { flex-wrap: nowrap; gap: .5rem; }
#reference .wrap, #reference .wrap * { font-size: .75rem; line-height: 1.2; padding: 0; white-space: normal; }
#reference .wrap .icon-wrap { width: 1.2rem; margin: 0; }
#message { scroll-margin-top: 12rem; }
#reference-note { min-height: 0; }
.cir-grid, .cir-grid .grid-wrap { min-height: 0 !important; height: auto !important; }
.cir-grid .grid-container { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) !important;
  grid-template-rows: none !important; grid-auto-rows: auto !important; height: auto !important; }
.cir-grid .grid-wrap { max-height: none !important; }
.cir-grid .thumbnail-item { height: 100% !important; aspect-ratio: auto !important; display: flex;
  flex-direction: column; }
.cir-grid .thumbnail-item.selected:not(:hover) { --ring-color: transparent;
  border-color: var(--border-color-primary); }
.cir-grid .thumbnail-item img { height: auto; aspect-ratio: 1; flex: none; padding: .25rem; box-sizing: border-box; }
.cir-grid .caption-label { position: static; flex: 1; max-width: none; margin: 0; padding: .1rem .3rem .2rem;
  border-radius: 0; font-size: .7rem; line-height: 1.2; text-align: center; white-space: pre-line;
  overflow-wrap: anywhere; }
#suggestions { max-height: 300px; overflow-y: auto; }
#suggestions .caption-label { display: none; }
#suggestions .grid-container { grid-template-columns: repeat(auto-fill, minmax(3.2rem, 1fr)) !important; }
footer { display: none !important; }
"""
