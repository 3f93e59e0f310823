// What JupyterHub's own scripts expect of an inline script, which our policy does not let run.
{
  const { baseUrl, prefix, user, xsrf, version, adminAccess } = document.body.dataset;
  const script = document.currentScript;
  window.jhdata = {
    base_url: baseUrl,
    prefix,
    user: user || undefined,
    admin_access: Boolean(adminAccess),
    options_form: true,
    xsrf_token: xsrf,
  };
  window.base_url = baseUrl;
  window.api_page_limit = parseInt(script.dataset.pageLimit || "50", 10);
  if (script.dataset.require) {
    require.config({
      urlArgs: version ? `v=${version}` : "",
      baseUrl: document.body.dataset.static,
      paths: {
        components: "../components",
        jquery: "../components/jquery/dist/jquery.min",
        moment: "../components/moment/moment",
      },
    });
    require([script.dataset.require]);
  }
}
