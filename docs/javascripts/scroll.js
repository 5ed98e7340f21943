// What is wider than the screen scrolls inside; let the keyboard scroll it too, and only where there is something to scroll.
const scrollable = ".md-typeset__scrollwrap, .md-typeset table:not([class]), mjx-container[display], .md-typeset pre > code, .jupyter-wrapper pre";
const mark = () => {
  for (const element of document.querySelectorAll(scrollable)) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
};
const observer = new ResizeObserver(() => requestAnimationFrame(mark));
document$.subscribe(() => {
  observer.disconnect();
  observer.observe(document.querySelector(".md-content"));
});
