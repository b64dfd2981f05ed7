// Follows a series while it works, by server-sent events. Each event is the whole state, so none that was missed matters.
(function () {
  var box = document.getElementById("live");
  if (!box || !box.dataset.events) return;
  var texts = JSON.parse(box.dataset.texts), failures = 0;
  var numbers = new Intl.NumberFormat(box.dataset.language === "en" ? "en-GB" : "nb-NO");
  function part(name) { return box.querySelector('[data-live="' + name + '"]'); }
  function say(name, text) { var at = part(name); if (at && at.textContent !== text) at.textContent = text; }

  function time(seconds) {
    var minutes = Math.round(seconds / 60);
    if (minutes < 1) return texts.second;
    if (minutes < 60) return texts.minute.replace("{count}", minutes);
    return texts.hour.replace("{hours}", Math.floor(minutes / 60)).replace("{minutes}", minutes % 60);
  }

  function note(sweep) {
    if (sweep.cancel_requested) return texts.stopping;
    if (sweep.state === "queued") return texts.waiting;
    return sweep.seconds_left === null ? texts.unknown : texts.left.replace("{time}", time(sweep.seconds_left));
  }

  function show(sweep) {
    var counts = sweep.counts, at = 0;
    var now = { succeeded: counts.succeeded || 0, running: counts.running || 0, waiting: counts.queued || 0, done: sweep.done };
    now.failed = sweep.done - now.succeeded;
    Object.keys(now).forEach(function (name) { say(name, numbers.format(now[name])); });
    ["succeeded", "failed", "running"].forEach(function (name) {
      var rect = box.querySelector('[data-bar="' + name + '"]'), width = 100 * now[name] / Math.max(1, sweep.size);
      rect.setAttribute("x", at);
      rect.setAttribute("width", width);
      at += width;
    });
    say("note", note(sweep));
    var newer = sweep.done - Number(box.dataset.shown);
    part("newer").hidden = newer <= 0;
    say("newertext", texts.newer.replace("{count}", numbers.format(newer)));
    if (sweep.state !== "queued" && sweep.state !== "running") {
      source.close();
      window.location.reload();
    }
  }

  var source = new EventSource(box.dataset.events);
  source.addEventListener("sweep", function (event) {
    failures = 0;
    show(JSON.parse(event.data));
  });
  source.onerror = function () {
    failures += 1;
    say("note", texts.lost);
    // A closed source is one that was refused, for instance because the session has ended: the page itself finds out.
    if (source.readyState === EventSource.CLOSED) setTimeout(function () { window.location.reload(); }, Math.min(60000, 5000 * failures));
  };
})();
