// Says where a table goes on beside the screen; inside the lab's own page also how tall the report is.
(function () {
  function hint() {
    document.querySelectorAll(".scroll + .hint").forEach(function (text) {
      var box = text.previousElementSibling;
      text.hidden = box.scrollWidth <= box.clientWidth + 1;
    });
  }
  new ResizeObserver(hint).observe(document.documentElement);
  window.addEventListener("load", hint);
  if (window.parent === window) return;
  var last = 0;
  function tell() {
    var height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height !== last) {
      last = height;
      window.parent.postMessage({ proverom: "height", height: height }, "*");
    }
  }
  new ResizeObserver(tell).observe(document.body);
  window.addEventListener("load", tell);
})();
