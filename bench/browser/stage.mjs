// The servers and the site, all of which end with the work that needs them.

import { contenders, pages } from "./contenders.mjs";
import { Site, scripts, startHub, startSocketIo } from "./servers.mjs";

/** Runs `work({ site, all, files })`: the contenders by name, and the scripts that their pages load. */
export async function withStage(work) {
  const ends = [];
  try {
    const site = await Site.serve();
    ends.unshift(() => site.remove());
    const hub = await startHub(site.origin);
    ends.unshift(() => hub.stop());
    const socketio = await startSocketIo();
    ends.unshift(() => socketio.stop());
    const all = contenders({ hub, socketio });
    const files = await scripts(hub);
    site.show(files, pages(all));
    return await work({ site, all, files });
  } finally {
    for (const end of ends) await end();
  }
}
