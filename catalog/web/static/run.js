// Follows a run while it works, by server-sent events.
(function () {
  var box = document.getElementById("live");
  if (!box) return;
  var words = JSON.parse(box.dataset.words);
  function part(name) { return box.querySelector('[data-live="' + name + '"]'); }
  var note = part("note"), usual = note.textContent, failures = 0;

  function show(run) {
    if (part("state").textContent !== words[run.state]) part("state").textContent = words[run.state] || run.state;
    var progress = part("progress");
    if (run.cells_total) {
      progress.max = run.cells_total;
      progress.value = run.cells_done;
      part("step").textContent = box.dataset.step.replace("{done}", run.cells_done).replace("{total}", run.cells_total);
    } else {
      progress.removeAttribute("value");
      part("step").textContent = "";
    }
    part("tailbox").hidden = !run.tail;
    var tail = part("tail"), atEnd = tail.scrollTop + tail.clientHeight >= tail.scrollHeight - 4;
    tail.textContent = run.tail || "";
    if (atEnd) tail.scrollTop = tail.scrollHeight;
    if (run.state !== "queued" && run.state !== "running") {
      source.close();
      window.location.reload();
    }
  }

  var source = new EventSource(box.dataset.events);
  source.addEventListener("run", function (event) {
    failures = 0;
    note.textContent = usual;
    show(JSON.parse(event.data));
  });
  source.onerror = function () {
    failures += 1;
    note.textContent = box.dataset.lost;
    // A closed source is one that was refused, for instance because the session has ended: the page itself finds out.
    if (source.readyState === EventSource.CLOSED) setTimeout(function () { window.location.reload(); }, Math.min(60000, 5000 * failures));
  };
})();
