// What makes the pages a little handier; all of it works without.
window.dsWarnings = false;
document.addEventListener("DOMContentLoaded", function () {
  var summary = document.querySelector("[data-autofocus]");
  if (summary) summary.focus();

  document.addEventListener("click", function (event) {
    var opener = event.target.closest("[data-opens]");
    if (opener) {
      var dialog = document.getElementById(opener.dataset.opens);
      if (dialog && dialog.showModal) {
        event.preventDefault();
        dialog.showModal();
      }
      return;
    }
    var closer = event.target.closest("[data-closes]");
    if (closer) document.getElementById(closer.dataset.closes).close();
  });

  document.querySelectorAll("form[data-once]").forEach(function (form) {
    form.addEventListener("submit", function () {
      var button = form.querySelector("button[type=submit]");
      // Disabled at once, the button would not be part of the form that is being sent.
      setTimeout(function () {
        button.setAttribute("aria-busy", "true");
        button.disabled = true;
      }, 0);
    });
  });
  // A page that is told of new notices while it stands open says so here.
  document.addEventListener("pr:unread", function (event) {
    var mark = document.querySelector("[data-bell]"), unread = event.detail;
    if (!mark) return;
    mark.hidden = !unread;
    mark.querySelector("[data-bell-count]").textContent = unread < 100 ? unread : "99+";
  });

  // Going back shows the page as it was left: with its buttons alive.
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-once] button[type=submit]").forEach(function (button) {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    });
  });
});
