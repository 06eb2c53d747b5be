/** What the pack uses of ComfyUI's frontend, whose own published types lack their entry file. */

interface Host extends EventTarget {
  fetchApi(path: string, init?: RequestInit): Promise<Response>;
  apiURL(path: string): string;
}

declare module "*/scripts/app.js" {
  export const app: any;
}

declare module "*/scripts/api.js" {
  export const api: Host;
}
