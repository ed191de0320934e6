window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
  options: { ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex" },
};

// Pages are swapped without a reload; each has to be typeset again.
document$.subscribe(() => MathJax.startup?.promise.then(() => MathJax.typesetPromise()));
