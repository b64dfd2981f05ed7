// Follows a run while it works, by server-sent events.
(function () {
  var box = document.getElementById("live");
  if (!box) return;
  var words = JSON.parse(box.dataset.words);
  function part(name) { return box.querySelector('[data-live="' + name + '"]'); }
  var notes = JSON.parse(box.dataset.notes), failures = 0;
  function say(name, text) { if (part(name).textContent !== text) part(name).textContent = text; }
  function stage(run) {
    if (run.cancel_requested) return "stopping";
    if (run.state === "queued") return run.attempt > 0 ? "again" : "waiting";
    return run.cells_total ? "working" : "starting";
  }

  function show(run) {
    say("state", words[run.state] || run.state);
    say("note", notes[stage(run)]);
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
    show(JSON.parse(event.data));
  });
  source.onerror = function () {
    failures += 1;
    say("note", box.dataset.lost);
    // A closed source is one that was refused, for instance because the session has ended: the page itself finds out.
    if (source.readyState === EventSource.CLOSED) setTimeout(function () { window.location.reload(); }, Math.min(60000, 5000 * failures));
  };
})();
