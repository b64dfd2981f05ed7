(function () {
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
